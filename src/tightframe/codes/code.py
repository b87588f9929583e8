"""`Code`: K unit vectors in R^D, as a row of a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from tightframe.errors import DimensionError, StateError
from tightframe.memory import require_memory

TOLERANCE = 1e-9
"""Largest cosines are equal within this difference."""


def tolerance(cosine: float) -> float:
    """The difference up to which two largest cosines are equal; for nearly parallel vectors less than `TOLERANCE`."""
    return max(TOLERANCE * min(1.0, 1 - cosine), 1e-15)  # rounding sets the floor


@dataclass(frozen=True)
class Code:
    """K unit vectors in R^D, their largest cosine, and how to build them, (K, D), if the package can.

    >>> from tightframe.codes import CODES
    >>> code = CODES["icosahedron"]
    >>> code.K, code.D, round(code.cosine, 6), code.optimal, code.vectors(4).shape  # cosine 1/sqrt(5)
    (12, 3, 0.447214, True, torch.Size([4, 3]))
    """

    name: str
    K: int
    D: int
    cosine: float
    """Largest cosine between two vectors."""
    source: str
    proof: str | None = None
    """Source of the proof that no K vectors in R^D have a smaller largest cosine, or the bound that the code attains;
    None without a proof."""
    inner_products: tuple[float, ...] | None = None
    """All cosines between two distinct vectors, ascending; None if the code has no algebraic description."""
    build: Callable[[int], Tensor] | None = field(default=None, compare=False, repr=False)
    """Function that returns the first n <= K vectors, (n, D) float64; None if only the cosine is known."""
    title: str = ""
    """The code's usual name."""

    def __str__(self) -> str:
        return self.title or self.name

    def vectors(self, num_vectors: int | None = None) -> Tensor:
        """The first vectors, by default all.

        Shape: (n, D), float64, unit rows.
        Raises: StateError if only the cosine is known, DimensionError unless 1 <= n <= K, RangeError without memory.
        """
        if self.build is None:
            raise StateError(f"only the largest cosine of the {self} is known, not its vectors.")
        number = self.K if num_vectors is None else num_vectors
        if not 1 <= number <= self.K:
            raise DimensionError(f"num_vectors must be in [1, {self.K}] for the {self}; got {number}.")
        require_memory(8 * number * self.D, f"a matrix of {number:,} vectors in {self.D:,} dimensions")
        return self.build(number)

    @property
    def optimal(self) -> bool:
        """Whether the largest cosine is proven to be the smallest possible."""
        return self.proof is not None
