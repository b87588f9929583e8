"""`Prototypes`: K class vectors, their provenance, and a certificate computed from the vectors alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from tightframe.checks import Array, as_tensor, require_finite
from tightframe.codes import Certificate, certify
from tightframe.errors import DtypeError, RangeError, ShapeError, StateError, TightframeError
from tightframe.prototypes.aim import verdict_on_aim
from tightframe.reading import failures_of, read_safetensors
from tightframe.version import __version__
from tightframe.writing import write_tensors

_FORMAT = "tightframe.prototypes"


@dataclass(frozen=True, eq=False)
class Prototypes:
    """One vector per class, fixed before training or taken from it.

    Attributes:
        vectors: (K, D) floating point, row k for class k; a numpy array is converted.
        provenance: JSON values: `constructor`, its arguments, `seed` of random constructions, `source` (the paper);
            `classes` of a selection, K entries that say which classes they are.

    Two are equal if vectors (shape, dtype and values) and provenance are equal. Indexing selects classes: `p[3]` is
    the vector of class 3, `p[2:5]` and `p[[0, 7]]` are Prototypes.
    Raises: ShapeError, DtypeError or NonFiniteError unless vectors are finite (K, D) floats with K, D >= 1;
    StateError for a provenance that is no mapping, has other than JSON values, or `classes` other than a list of K.

    >>> import torch
    >>> from tightframe import Prototypes
    >>> len(Prototypes(torch.eye(3)))
    3
    """

    vectors: Tensor
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", as_tensor(self.vectors, "vectors"))
        if self.vectors.ndim != 2 or 0 in self.vectors.shape:
            raise ShapeError(f"vectors must be (K, D) with K, D >= 1; got {tuple(self.vectors.shape)}.")
        if not self.vectors.dtype.is_floating_point:
            raise DtypeError(f"vectors must be floating point; got {self.vectors.dtype}.")
        require_finite(self.vectors.detach(), "vectors")
        if not isinstance(self.provenance, Mapping):
            raise StateError(f"the provenance must be a mapping; got {type(self.provenance).__name__}.")
        try:
            plain = json.loads(json.dumps(dict(self.provenance)))
        except (TypeError, ValueError) as error:
            raise StateError(f"the provenance must contain JSON values only; {error}.") from None
        classes = plain.get("classes", [None] * self.num_classes)
        if not isinstance(classes, list) or len(classes) != self.num_classes:
            raise StateError(
                f"the provenance's 'classes' must be a list of {self.num_classes}, one for each vector; got "
                f"{classes!r:.100}."
            )
        object.__setattr__(self, "provenance", MappingProxyType(plain))

    @classmethod
    def of(cls, vectors: Prototypes | Array) -> Prototypes:
        """Prototypes from vectors (K, D), a tensor or a numpy array; Prototypes are returned unchanged."""
        return vectors if isinstance(vectors, Prototypes) else cls(as_tensor(vectors, "vectors"))

    @property
    def num_classes(self) -> int:
        """K, the number of vectors."""
        return self.vectors.shape[0]

    @property
    def dim(self) -> int:
        """D, the number of dimensions."""
        return self.vectors.shape[1]

    @cached_property
    def certificate(self) -> Certificate:
        """The certificate of the vectors, with a verdict on the aim of their construction; computed on first access."""
        return self.judged(certify(self.vectors))

    def judged(self, certificate: Certificate) -> Certificate:
        """The certificate of the vectors, with the verdict on their construction's aim first if there is one."""
        verdict = verdict_on_aim(self.provenance)
        return certificate if verdict is None else certificate.as_remark(verdict)

    def __len__(self) -> int:
        return self.num_classes

    def __getitem__(self, classes: int | slice | Sequence[int] | Tensor) -> Prototypes | Tensor:
        vectors = self.vectors[classes]
        if vectors.ndim < 2:
            return vectors
        rows = torch.arange(self.num_classes, device="cpu")
        indices = rows[classes.cpu() if isinstance(classes, Tensor) else classes].flatten().tolist()
        before = self.provenance.get("classes", range(self.num_classes))
        selected = [before[row] for row in indices]
        return Prototypes(vectors, {**self.provenance, "num_classes": len(vectors), "classes": selected})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prototypes):
            return NotImplemented
        return (
            self.vectors.dtype == other.vectors.dtype
            and torch.equal(self.vectors.cpu(), other.vectors.cpu())
            and dict(self.provenance) == dict(other.provenance)
        )

    __hash__ = None  # type: ignore[assignment]  # equality compares tensors

    def __reduce__(self) -> tuple[type[Prototypes], tuple[Tensor, dict[str, Any]]]:
        return Prototypes, (self.vectors, dict(self.provenance))  # copy and pickle don't support a mapping proxy

    def __repr__(self) -> str:
        constructor = self.provenance.get("constructor", "given vectors")
        return f"Prototypes({self.num_classes} classes, {self.dim} dimensions, {constructor})"

    def to(self, *args: Any, **kwargs: Any) -> Prototypes:
        """The same prototypes on another device or in another dtype, as `torch.Tensor.to`."""
        return Prototypes(self.vectors.to(*args, **kwargs), self.provenance)

    def scaled(self, scale: float) -> Prototypes:
        """The same directions, with vectors `scale` times as long. Raises: RangeError unless 0 < scale < inf."""
        if not isinstance(scale, Real) or isinstance(scale, bool) or not 0 < scale < math.inf:
            raise RangeError(f"scale must be positive and finite; got {scale!r}.")
        before = self.provenance.get("scale", 1)
        total = float(scale) * (before if isinstance(before, int | float) else 1)
        return Prototypes(self.vectors * float(scale), {**self.provenance, "scale": total})

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with `vectors`; its metadata holds format, version and provenance."""
        metadata = {
            "format": _FORMAT,
            "version": __version__,
            "provenance": json.dumps(dict(self.provenance), ensure_ascii=False),
        }
        write_tensors(path, {"vectors": self.vectors}, metadata)

    @classmethod
    def load(cls, path: str | Path) -> Prototypes:
        """Read a file of `save`. Raises: StateError for any other file."""
        path = Path(path)
        tensors, metadata = read_safetensors(path, _FORMAT)
        with failures_of(path, "as prototypes"):
            try:
                return cls(tensors["vectors"], json.loads(metadata["provenance"]))
            except TightframeError as error:
                raise StateError(f"{path}: {error}") from None
