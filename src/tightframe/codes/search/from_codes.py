"""Starts of a search from exact codes: caps, sections, and complete layers with filled holes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import count

import torch
from torch import Tensor

from tightframe.codes.code import Code
from tightframe.codes.search.caps import (
    ENTRIES,
    SHARE,
    Layers,
    cap_starts,
    complete_layers,
    section_starts,
    undominated,
)
from tightframe.codes.search.energy import SeparationEnergy
from tightframe.codes.search.holes import filled, thinned
from tightframe.codes.search.orbits import Free
from tightframe.codes.search.sphere import descend
from tightframe.codes.search.starts import Start, batch_size
from tightframe.codes.table import CODES

_CAP_CODES, _LAYER_CODES = 5, 12  # numbers of codes for caps and sections, and for layers
_LARGEST = 1 << 26  # maximum entries of a part of a code
_CAP_DIMENSIONS, _LAYER_DIMENSIONS = 2, 3  # maximum dimensions more than D of codes for sections, and for their layers
_THINNED = 1.5  # maximum vectors of a code that is thinned, for each point
_CODE_SHARE = 4  # each code takes at most a fourth of the remaining time for draws
_DRAWS = 10, 1000  # minimum and maximum draws of caps and sections per code
_PATIENCE = 3.0  # maximum seconds, by estimate, for the draws of a code without a time limit
_MELTING = 0.7, 4.0  # first exponents of caps, in units
_MILD = 6.0, 24.0  # first exponents of filled layers, in units; lower ones dissolve the layers
_RANKING, _RANKING_STEPS = 15.0, 30  # exponent, in units, and steps of descent that rank filled layers


def cap_batches(num_points: int, dim: int, seed: int, seconds: float = math.inf) -> Iterator[Start]:
    """Infinite batches of caps of codes in `dim` dimensions and sections of codes in a few more, in turn.

    Codes of more than 4 K points come last: K of them are a small cap, which is rarely better than free points.
    """
    K, D = num_points, dim
    codes = sorted(_codes(K, D, _CAP_DIMENSIONS, K)[:_CAP_CODES], key=lambda code: code.K > SHARE * K)
    batch = batch_size(K * K, seconds)
    for turn in count(seed) if codes else ():
        for code in codes:
            if code.D == D:
                kind, points = "cap", cap_starts(code, K, turn, batch)
            else:
                kind, points = "section", section_starts(code, K, D, turn, batch)
            yield Start(torch.stack(list(points)), Free(), f"{kind} of the {code.name}", *_MELTING)


def thinned_code(num_points: int, dim: int) -> Start | None:
    """The code of somewhat more points with the smallest largest cosine, without its crowded points; None without one.

    Its descent begins at a high exponent: at a lower one the points would leave their places.
    """
    near = [code for code in _codes(num_points, dim, 0, num_points + 1) if _THINNED * num_points >= code.K]
    if not near:
        return None
    code = min(near, key=lambda code: code.cosine)
    return Start(thinned(code.vectors(), num_points)[None], Free(), f"thinned {code.name}", _RANKING, _RANKING)


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
        limit: float = math.inf,
    ):
        """For a search whose rounds may take some seconds, and which ends when the clock shows the limit."""
        self.num_points, self.dim, self._unit = num_points, dim, unit
        self._codes = _codes(num_points, dim, _LAYER_DIMENSIONS, math.ceil(num_points / SHARE))[:_LAYER_CODES]
        self._batch = batch_size(num_points * num_points, seconds)
        self._seconds, self._clock, self._limit = seconds / 2, clock, limit
        self._seed = seed
        self._generator = torch.Generator().manual_seed(seed)
        self._keys: set[tuple[int, float]] = set()
        self._queue: list[Layers] = []
        self._exhausted = False

    def draw(self) -> Start | None:
        """The next batch; None without codes or further layers."""
        if not (self._queue or self._exhausted):
            self._look()
        layers, self._queue = self._queue[: self._batch], self._queue[self._batch :]
        if not layers:
            return None
        names = tuple(f"filled {each.name}" for each in layers)
        ends = _MILD if self._batch > 1 else (_RANKING, _RANKING)
        points = self._fill(layers, lambda: self._clock() > self._limit)
        return Start(points, Free(), names[0], *ends, names)

    def _look(self) -> None:
        """Draw caps and sections, and queue new layers; stop drawing if there are none."""
        begin = self._clock()
        end = min(begin + self._seconds, self._limit)
        middle = (begin + end) / 2
        late, over = (lambda: self._clock() > middle), (lambda: self._clock() > end)
        layers: list[Layers] = []
        for code in self._codes:
            a_draw = 5e-4 + 1.2e-9 * self.num_points**2 + 1.5e-8 * code.K * code.D
            seconds = _PATIENCE if math.isinf(end) else (middle - self._clock()) / _CODE_SHARE
            draws = int(max(_DRAWS[0], min(_DRAWS[1], seconds / a_draw)))
            layers += complete_layers(code, self.num_points, self.dim, self._seed, draws, late)
            if late():
                break
        self._seed += 1
        new = [each for each in reversed(undominated(layers)) if self._key(each) not in self._keys]
        self._keys |= {self._key(each) for each in new}
        self._exhausted = not new
        ranked: list[tuple[float, Layers]] = []
        for first in range(0, len(new), self._batch):
            batch = new[first : first + self._batch]
            energies = [math.inf] * len(batch) if over() else self._energies(self._fill(batch, over), over).tolist()
            ranked += zip(energies, batch, strict=True)
        self._queue = [each for _, each in sorted(ranked, key=lambda pair: pair[0])]

    def _fill(self, layers: list[Layers], stop: Callable[[], bool]) -> Tensor:
        return torch.stack([filled(each.points, self.num_points, self._generator, stop) for each in layers])

    def _energies(self, points: Tensor, stop: Callable[[], bool]) -> Tensor:
        """Energies (R,) of starts after a short descent."""
        energy = SeparationEnergy(torch.full((len(points),), _RANKING * self._unit))
        return energy(descend(points.float(), energy, steps=_RANKING_STEPS, stop=stop))[0]

    @staticmethod
    def _key(layers: Layers) -> tuple[int, float]:
        return len(layers.points), round(layers.cosine, 9)


def _codes(num_points: int, dim: int, more: int, fewest: int) -> list[Code]:
    """Codes of at least `fewest` vectors in D to D + `more` dimensions, sorted by dimension, then by cosine."""
    near = [
        code
        for code in CODES.values()
        if fewest <= code.K
        and dim <= code.D <= dim + more
        and code.D * num_points <= _LARGEST
        and code.D * code.K <= ENTRIES
    ]
    return sorted(near, key=lambda code: (code.D, code.cosine))
