"""`separate`: a search for the most separated unit vectors, for any K and D."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor

from tightframe.codes.bounds import cosine_bound
from tightframe.codes.code import Code
from tightframe.codes.search import starts
from tightframe.codes.search.anneal import exponent_unit
from tightframe.codes.search.energy import LargestCosine, SeparationEnergy, largest_cosines, seconds_of_a_pass
from tightframe.codes.search.from_codes import FilledLayers, cap_batches
from tightframe.codes.search.holes import thinned
from tightframe.codes.search.neighbours import NearEnergy
from tightframe.codes.search.orbits import Free
from tightframe.codes.search.polish import LARGEST, is_rigid, polish
from tightframe.codes.search.running import Running
from tightframe.codes.search.sphere import descend, unit
from tightframe.codes.search.starts import Start
from tightframe.numerics import one_thread, unit_rows
from tightframe.search import Search

_SMALL = 3e7  # K * K * D up to which a pass over all pairs is a matter of milliseconds
_NUDGE = 1e-4  # breaks the symmetry of a start, which may be a saddle
_GROUPS = 16  # drawn in a round of symmetric starts: each takes a fraction of the time of other starts
_OPTIMAL = 1e-13  # above a bound by no more: nothing is left to find
_THINNED = 4096  # vectors of a known code up to which the best part is chosen, not the first
_CROWDED = 2000  # points from which on lists of near pairs pay
_FEWEST = 5  # evaluations that make a stage of a descent worthwhile
_PROJECTIONS = 1 << 27  # numbers in the maps that keep orbits symmetric, D x D each, 1 GiB in float64
_MELTED, _FROZEN = 300.0, 1e4  # exponents, in units, that a relaxation begins with
_LAST = 3e5  # ... and that it ends with
_RELAXING_STAGES = 10 / 3  # for each power of ten
_MANY_PAIRS = 1 << 17  # from which on single precision pays...
_SINGLE = 1 << 16  # ... and the exponents below which it does
_HISTORY = 1 << 28  # numbers that the descent may remember, 1 GiB in float32


def separate(
    num_points: int, dim: int, search: Search, *, caps: bool = True, known: Code | None = None
) -> tuple[Tensor, Running]:
    """Unit vectors (K, D), float64, with a small largest cosine, and the search that led there.

    See `prototypes.separated`. K >= 2 and D >= 1 with distinct unit vectors. The result is no worse than the `known`
    code, from which the search starts too.
    """
    K, D = num_points, dim
    score = LargestCosine(search.time)
    running = Running(score, search, (K, D), cosine_bound(K, D).value + _OPTIMAL)
    device, warm_start = torch.device(search.device or "cpu"), running.warm_start
    if known is not None:
        vectors = known.vectors(K) if known.K > _THINNED else thinned(known.vectors(), K)
        vectors = torch.nn.functional.pad(vectors, (0, D - known.D)).contiguous().to(device)
        running.offer(vectors, known.name)
        warm_start = vectors if warm_start is None else warm_start
    rounds = _Rounds(K, D, running, search.seed, caps, warm_start, device)
    with one_thread() if rounds.small else nullcontext():  # small products wait for each other's threads
        points = running.run(rounds.play)
    running.start += score.remark(K)
    return unit_rows(points.double()), running


class _Rounds:
    """The rounds of `separate`."""

    def __init__(
        self, K: int, D: int, search: Running, seed: int, caps: bool, warm_start: Tensor | None, device: torch.device
    ):
        self.K, self.D, self.search, self.seed, self.device = K, D, search, seed, device
        self.small = K * K * D <= _SMALL
        self.polished = K * D <= LARGEST
        self.unit = exponent_unit(cosine_bound(K, D).value)
        self.warm_start = warm_start
        self.share = search.remaining / 3  # of the time that one round of a batch may take, about
        self.symmetric = starts.Symmetric(K, D, torch.Generator().manual_seed(seed))
        self.polish_cost = (K * D / 1300) ** 3  # in seconds, a guess until one was timed
        self.polish_spent = 0.0
        self.unpolished: tuple[float, Tensor, str] | None = None
        self.caps = cap_batches(K, D, seed, self.share) if caps else iter(())
        self.layers = FilledLayers(K, D, self.unit, seed, self.share) if caps and self.small else None
        self.blind = 0  # rounds without exact codes
        self.kinds = [self._play_caps, self._play_layers, self._play_blind]
        if not self.polished:  # what isn't polished gains most from structure that is there
            self.kinds = [self._play_layers, self._play_blind, self._play_caps]
        self.scores = [math.inf] * len(self.kinds)

    def play(self, index: int) -> None:
        """One round: a warm start first; then the best kind of start in three of four rounds, else each kind in turn.

        If rounds are short, each kind is first played once.
        """
        self.generator = torch.Generator().manual_seed((self.seed << 20) + index)
        self.ahead = 1
        if index == 0 and self.warm_start is not None:
            self._relax(unit(self.warm_start.to(self.device, torch.float64)), "warm start")
        else:
            others, place = divmod(index, 4)
            first = self.scores.index(min(self.scores)) if place < 3 else -(others + 1) % len(self.kinds)
            if self.polished and index < len(self.kinds):
                first = index
            for kind in (*range(first, len(self.kinds)), *range(first)):
                if (score := self.kinds[kind]()) is not None:
                    self.scores[kind] = min(self.scores[kind], score)
                    break
        self._polish(last=self._left() <= 0)

    def _play_caps(self) -> float | None:
        if (start := next(self.caps, None)) is None:
            return None
        self.ahead = 1 if self.small or self.search.round else 2  # of large problems, the other half for points at will
        return self._anneal(start)

    def _play_layers(self) -> float | None:
        if self.layers is None or (start := self.layers.draw()) is None:
            return None
        least = int(largest_cosines(start.representatives).argmin())
        score = self.search.offer(start.representatives[least].to(self.device), start.names[least])  # may be exact
        if not self.search.stopped():
            score = self._anneal(start)
        self.layers.tell(score)
        return score

    def _play_blind(self) -> float:
        """Points with opposites, free points, and orbits of random groups, in turn."""
        turn, self.blind = self.blind, self.blind + 1
        if self.small and turn % 3 == 0 and self.K % 2 == 0 and self.K > 2:
            return self._anneal(starts.antipodal(self.K, self.D, self.generator, self.share))
        if turn % 3 < 2 or self.D == 1 or self.K * self.D**2 > _PROJECTIONS:
            return self._anneal(starts.free(self.K, self.D, self.generator, self.share))
        score = math.inf
        for _ in range(_GROUPS):
            if (drawn := self.symmetric.draw()) is not None and self._left() > 0:
                start, tell = drawn
                tell(cosine := self._anneal(start))
                score = min(score, cosine)
        return score

    def _anneal(self, start: Start) -> float:
        """Minimise the energy of a batch of starts, relax the best if it may improve the result; its largest cosine."""
        batch = len(start.representatives)
        whole = isinstance(start.orbits, Free)
        stages, steps, patience = (14, 80, 1e-5) if whole else (8, 40, 1e-3)
        ends = math.log10(start.lowest), math.log10(start.highest)
        first = torch.logspace(*ends, batch + 2, dtype=torch.float64)[1:-1]
        growth = ((1e5 if whole and self.polished else 1e4) / first) ** (1 / (stages - 1))
        exponents = [self.unit * first * growth**stage for stage in range(stages)]
        points = self._descend(start, exponents, steps, patience)
        orbits = start.orbits.to(points)
        best = int(largest_cosines(points, orbits).argmin()) if batch > 1 else 0
        expanded = unit(orbits.expand(points)[best].double())
        name = start.names[best] if start.names else start.name
        cosine = self.search.offer(expanded, name)
        if cosine <= self.search.best + (0 if whole and not self.polished else 0.02 / self.unit):
            self._relax(expanded, name, _MELTED if self.polished or not whole else _FROZEN)
        return cosine

    def _relax(self, points: Tensor, name: str, lowest: float = _MELTED) -> None:
        """Descend without symmetry from the result of a start, up to high exponents."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(self.K, self.D, dtype=torch.float64, generator=generator)
        start = Start(unit(points + _NUDGE * noise.to(points))[None], Free(), name)
        number = 1 + round(_RELAXING_STAGES * math.log10(_LAST / lowest))
        stages = torch.logspace(math.log10(lowest), math.log10(_LAST), number, dtype=torch.float64)
        points = self._descend(start, list(self.unit * stages[:, None]), 100 if lowest == _MELTED else 30, 1e-4)[0]
        cosine = self.search.offer(unit(points.double()), name)
        if self.polished and (self.unpolished is None or cosine < self.unpolished[0]):
            self.unpolished = cosine, points, name
        self._polish()

    def _descend(self, start: Start, exponents: list[Tensor], steps: int, patience: float) -> Tensor:
        """Representatives after descent through a schedule of exponents (R,), which share the remaining time."""
        points = start.representatives.to(self.device, torch.float64 if self.small else torch.float32)
        orbits = start.orbits.to(points)
        pairs = points.shape[0] * points.shape[1] * self.K
        if self.search.points is None:  # for Ctrl-C, and for problems that leave no time to descend
            warm = None if self.warm_start is None else unit(self.warm_start.to(self.device, torch.float64))
            self.search.offer(orbits.expand(points)[0] if warm is None else warm, start.name)
        if not self.small and math.isfinite(self._left()):
            evaluations = self._left() / self.ahead / (3 * seconds_of_a_pass(points, orbits))
            stages = min(len(exponents), int(evaluations / _FEWEST))
            chosen = torch.linspace(0, len(exponents) - 1, stages).tolist() if stages > 1 else [len(exponents) // 3]
            exponents = [exponents[round(stage)] for stage in chosen] if evaluations >= 2 else []
        crowded = self.K >= _CROWDED and self.K >= 40 * self.D
        sparse = crowded and isinstance(orbits, Free) and len(points) == 1
        for stage, exponent in enumerate(exponents):
            end = self.search.seconds + self._left() / self.ahead / (len(exponents) - stage)
            stop = lambda end=end: self.search.seconds > end  # noqa: E731
            if self.small and pairs > _MANY_PAIRS:
                points = points.to(torch.float32 if float(exponent.max()) < _SINGLE else torch.float64)
                orbits = orbits.to(points)
            p = exponent.to(points)
            points = descend(
                points,
                NearEnergy(p, stop) if sparse else SeparationEnergy(p, orbits, stop),
                steps=steps if self.small or math.isinf(end) else 10 * steps,
                tolerance=(patience / exponent).to(points),
                memory=max(2, min(8, _HISTORY // (2 * points.numel()))),
                stop=stop,
            )
            if not self.small:
                self.search.offer(orbits.expand(points)[0], start.name)
        return points

    def _promising(self) -> bool:
        """Whether there are unpolished points that may become the best."""
        return self.unpolished is not None and self.unpolished[0] < self.search.best + 2e-3 / self.unit

    def _left(self) -> float:
        """Seconds left to explore, without the time reserved for polishing."""
        return self.search.remaining - (1.2 * self.polish_cost if self._promising() else 0.0)

    def _polish(self, *, last: bool = False) -> None:
        """Polish promising points: at once if that is quick, else with at most a third of the time."""
        if not self._promising():
            return
        assert self.unpolished is not None
        timely = (
            math.isinf(self.search.remaining)
            or is_rigid(self.unpolished[1].double().cpu(), 1e-4 / self.unit)
            or self.polish_spent + self.polish_cost < self.search.seconds / 3
        )
        if not (timely or last):
            return
        begin = self.search.seconds
        _, points, name = self.unpolished
        self.unpolished = None
        self.search.offer(polish(points.double().cpu(), stop=self.search.stopped), name)
        self.polish_cost = self.search.seconds - begin
        self.polish_spent += self.polish_cost
