"""PNG images without an image library."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence


def png(rows: Sequence[bytes], colours: Sequence[tuple[int, int, int]]) -> bytes:
    """An image of one byte per pixel, an index into at most 256 colours; colour 0 is transparent."""
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 3, 0, 0, 0)
    palette = bytes(channel for colour in colours for channel in colour)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    chunks = [(b"IHDR", header), (b"PLTE", palette), (b"tRNS", b"\0"), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def data_uri(image: bytes) -> str:
    """An image as a data URI."""
    return "data:image/png;base64," + base64.b64encode(image).decode()
