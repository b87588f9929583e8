"""Starts of a search from exact codes: caps, sections, and complete layers with filled holes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import count

import torch
from torch import Tensor

from tightframe.codes.code import Code
from tightframe.codes.search.caps import SHARE, Layers, cap_starts, complete_layers, section_starts, undominated
from tightframe.codes.search.energy import SeparationEnergy
from tightframe.codes.search.holes import filled
from tightframe.codes.search.orbits import Free
from tightframe.codes.search.sphere import descend
from tightframe.codes.search.starts import Start, batch_size
from tightframe.codes.table import CODES

_CAP_CODES, _LAYER_CODES = 5, 10  # whose caps and sections, and whose layers are tried
_LARGEST = 1 << 26  # numbers
_CAP_DIMENSIONS, _LAYER_DIMENSIONS = 2, 3  # that a code may have too many, for sections and for their layers
_CODE_SHARE = 4  # the first code may take a fourth of the time to look, each other one a fourth of the rest
_DRAWS = 10, 1000  # of caps and sections in which complete layers are looked for
_MELTING = 0.7, 4.0  # exponents, in units, to begin with from a cap, which is cut off somewhere
_MILD = 6.0, 24.0  # ... and from filled layers, which lower ones would melt
_RANKING, _RANKING_STEPS = 15.0, 30  # the exponent, in units, at which these are compared, after steps of descent


def cap_batches(num_points: int, dim: int, seed: int, seconds: float = math.inf) -> Iterator[Start]:
    """Infinite batches of caps of codes in `dim` dimensions and sections of codes in a few more, in turn."""
    K, D = num_points, dim
    codes = _codes(K, D, _CAP_DIMENSIONS, K)[:_CAP_CODES]
    batch = batch_size(K * K, seconds)
    for turn in count(seed) if codes else ():
        for code in codes:
            if code.D == D:
                kind, drawn = "cap", cap_starts(code, K, turn, batch)
            else:
                kind, drawn = "section", section_starts(code, K, D, turn, batch)
            yield Start(torch.stack(list(drawn)), Free(), f"{kind} of the {code.name}", *_MELTING)


class FilledLayers:
    """Complete layers of codes' caps and sections with points in their holes, the most promising first.

    The energy after a short descent ranks the layers.
    """

    def __init__(
        self,
        num_points: int,
        dim: int,
        unit: float,
        seed: int,
        seconds: float = math.inf,
        clock: Callable[[], float] = lambda: 0.0,
    ):
        self.num_points, self.dim, self._unit = num_points, dim, unit
        self._codes = _codes(num_points, dim, _LAYER_DIMENSIONS, math.ceil(num_points / SHARE))[:_LAYER_CODES]
        self._batch = batch_size(num_points * num_points, seconds)
        self._seconds, self._clock = seconds / 2, clock
        self._seed = seed
        self._generator = torch.Generator().manual_seed(seed)
        self._known: set[tuple[int, float]] = set()
        self._waiting: list[Layers] = []
        self._exhausted = False

    def draw(self) -> Start | None:
        """The next batch; None without codes or further layers."""
        if not (self._waiting or self._exhausted):
            self._look()
        chosen, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
        if not chosen:
            return None
        names = tuple(f"filled {layers.name}" for layers in chosen)
        ends = _MILD if self._batch > 1 else (_RANKING, _RANKING)
        return Start(self._fill(chosen), Free(), names[0], *ends, names)

    def _look(self) -> None:
        """Draw caps and sections, and queue new layers; stop drawing if there are none."""
        end = self._clock() + self._seconds
        middle = end - self._seconds / 2
        found: list[Layers] = []
        for code in self._codes:
            a_draw = 5e-4 + 1.2e-9 * self.num_points**2 + 1.5e-8 * code.K * code.D
            draws = int(max(_DRAWS[0], min(_DRAWS[1], (middle - self._clock()) / _CODE_SHARE / a_draw)))
            found += complete_layers(code, self.num_points, self.dim, self._seed, draws, lambda: self._clock() > middle)
            if self._clock() > middle:
                break
        self._seed += 1
        fresh = [layers for layers in reversed(undominated(found)) if self._key(layers) not in self._known]
        self._known |= {self._key(layers) for layers in fresh}
        self._exhausted = not fresh
        ranked: list[tuple[float, Layers]] = []
        for first in range(0, len(fresh), self._batch):
            batch = fresh[first : first + self._batch]
            late = first and self._clock() > end
            energies = [math.inf] * len(batch) if late else self._energies(self._fill(batch)).tolist()
            ranked += zip(energies, batch, strict=True)
        self._waiting = [layers for _, layers in sorted(ranked, key=lambda pair: pair[0])]

    def _fill(self, chosen: list[Layers]) -> Tensor:
        return torch.stack([filled(layers.points, self.num_points, self._generator) for layers in chosen])

    def _energies(self, points: Tensor) -> Tensor:
        """Energies (R,) of starts after a short descent."""
        energy = SeparationEnergy(torch.full((len(points),), _RANKING * self._unit))
        return energy(descend(points.float(), energy, steps=_RANKING_STEPS))[0]

    @staticmethod
    def _key(layers: Layers) -> tuple[int, float]:
        return len(layers.points), round(layers.cosine, 9)


def _codes(num_points: int, dim: int, more: int, fewest: int) -> list[Code]:
    """Codes of at least `fewest` vectors in D to D + `more` dimensions, sorted by dimension, then by cosine."""
    near = [
        code
        for code in CODES.values()
        if fewest <= code.K and dim <= code.D <= dim + more and code.D * num_points <= _LARGEST
    ]
    return sorted(near, key=lambda code: (code.D, code.cosine))
