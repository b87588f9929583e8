"""Files that users have, read without running anything in them: one reader per format.

Every reader refuses what is not a regular file, compares the declared shapes with the file's size before it allocates
memory, and turns each failure into one StateError that names the file.
"""

from tightframe.reading.arrays import Arrays, read_arrays
from tightframe.reading.checkpoint import read_checkpoint
from tightframe.reading.opening import failures_of, opened, reason_of
from tightframe.reading.safetensors import read_safetensors
from tightframe.reading.text import read_json, read_rows, read_text

__all__ = [
    "Arrays",
    "failures_of",
    "opened",
    "read_arrays",
    "read_checkpoint",
    "read_json",
    "read_rows",
    "read_safetensors",
    "read_text",
    "reason_of",
]
