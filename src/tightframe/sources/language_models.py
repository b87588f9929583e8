"""`from_texts`: runs a causal language model over texts; the class of a position is the next token."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from tightframe.errors import DatasetError, EmptyBatchError, LoaderError, RangeError, StateError
from tightframe.options import Measuring
from tightframe.processes import rank, world_size
from tightframe.reading import failures_of, opened
from tightframe.sources.model import ModelSource
from tightframe.sources.next_token import predicts_next_token

LENGTH = 512
_LONGEST_LINE = 1 << 26  # maximum characters of a line
_PIECE = 1 << 20  # characters of a file tokenised together

Texts = Sequence[str | Path]


def from_texts(
    model: nn.Module,
    tokenizer: Any,
    texts: Texts,
    *,
    test: Texts | None = None,
    ood: Texts | None = None,
    length: int | None = None,
    batch_size: int = 4,
    options: Measuring | Mapping[str, Any] | None = None,
) -> ModelSource:
    """A source from a causal language model and texts, which are read on demand.

    The tokens of all texts are concatenated, with the tokenizer's end-of-text token after each text, and cut into
    sequences; each starts with the beginning-of-text token if the tokenizer adds one. An incomplete last sequence is
    left out. Classes are the tokens, with their names. Each process of `torch.distributed` reads its part.

    Args:
        tokenizer: a tokenizer of transformers.
        texts: training texts or their files (plain text or .gz). test: held out. ood: out of distribution.
        length: tokens per sequence. Default: 512, or the model's maximum if that is lower.
        options: as in `ModelSource`.

    Raises: RangeError for a length beyond the model's maximum; LoaderError for a model that doesn't predict the next
    token; DatasetError for unreadable files; EmptyBatchError for texts with fewer than two tokens.
    """
    if not predicts_next_token(model):
        raise LoaderError(
            f"texts need a causal language model; {type(model).__name__} does not predict the next token."
        )
    if isinstance(texts, str | Path):
        raise LoaderError(f"texts must be a list of texts or files; got {type(texts).__name__}. Pass [texts].")
    most = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if length is None:
        length = LENGTH if most is None else min(LENGTH, most)
    if not 2 <= length <= (most or length):
        raise RangeError(f"length must be at least 2{f' and at most {most}' if most else ''} tokens; got {length}.")
    if batch_size < 1:
        raise RangeError(f"batch_size must be at least 1; got {batch_size}.")
    settings = Measuring.of(options or {})
    if settings.class_names is None:
        settings = settings.having(class_names=tokenizer)

    def loader(given: Texts | None) -> DataLoader[Any] | None:
        return None if given is None else DataLoader(_Sequences(tokenizer, given, length), batch_size)

    return ModelSource(model, loader(texts), test=loader(test), ood=loader(ood), options=settings)


class _Sequences(IterableDataset[Any]):
    """Sequences of equal length, {"input_ids": (length,)}; one shorter sequence if there are fewer tokens."""

    def __init__(self, tokenizer: Any, texts: Texts, length: int):
        self._tokenizer, self._texts, self._length = tokenizer, texts, length
        beginning = tokenizer.bos_token_id
        begins = beginning is not None and list(tokenizer("").input_ids)[:1] == [beginning]
        self._start: list[int] = [beginning] if begins else []

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return islice(self._all(), rank(), None, world_size())

    def _all(self) -> Iterator[dict[str, Tensor]]:
        pending: list[int] = []
        size, empty = self._length - len(self._start), True
        for tokens in self._tokens():
            pending += tokens
            whole = len(pending) - len(pending) % size
            for start in range(0, whole, size):
                yield self._sequence(pending[start : start + size])
                empty = False
            pending = pending[whole:]
        if empty:
            if len(pending) + len(self._start) < 2:
                raise EmptyBatchError("the texts must have at least two tokens; they have fewer. Pass longer texts.")
            yield self._sequence(pending)

    def _sequence(self, tokens: list[int]) -> dict[str, Tensor]:
        return {"input_ids": torch.tensor(self._start + tokens)}

    def _tokens(self) -> Iterator[list[int]]:
        end = self._tokenizer.eos_token_id
        for text in self._texts:
            for piece in _pieces(text) if isinstance(text, Path) else [text]:
                yield list(self._tokenizer(piece, add_special_tokens=False, verbose=False).input_ids)
            if end is not None:
                yield [end]


def _pieces(path: Path) -> Iterator[str]:
    """Whole lines of a UTF-8 file, about a million characters at a time. Raises: DatasetError if it is unreadable."""
    try:
        with opened(path) as file, failures_of(path, "as text"), ExitStack() as stack:
            content: Any = stack.enter_context(gzip.open(file)) if path.suffix == ".gz" else file
            lines, size = list[str](), 0
            text = TextIOWrapper(content, encoding="utf-8")
            while line := text.readline(_LONGEST_LINE + 1):
                if len(line) > _LONGEST_LINE:
                    raise DatasetError(f"{path} must have lines of at most {_LONGEST_LINE:,} characters.")
                lines.append(line)
                size += len(line)
                if size >= _PIECE:
                    yield "".join(lines)
                    lines, size = [], 0
            if lines:
                yield "".join(lines)
    except StateError as error:
        raise DatasetError(str(error)) from None
