"""`separate`: a search for the most separated unit vectors, for any K and D."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from tightframe.codes.bounds import cosine_bound
from tightframe.codes.code import Code
from tightframe.codes.random_vectors import random_cosine
from tightframe.codes.search import starts
from tightframe.codes.search.anneal import exponent_unit
from tightframe.codes.search.energy import LargestCosine, SeparationEnergy, largest_cosines, seconds_of_a_pass
from tightframe.codes.search.from_codes import FilledLayers, cap_batches, thinned_code
from tightframe.codes.search.holes import thinned
from tightframe.codes.search.hops import Minima
from tightframe.codes.search.neighbours import NearEnergy, NearestEnergy
from tightframe.codes.search.orbits import Free
from tightframe.codes.search.polish import LARGEST, polish
from tightframe.codes.search.running import Running, generator_of
from tightframe.codes.search.sphere import Objective, descend
from tightframe.codes.search.starts import Start
from tightframe.numerics import one_thread, unit_rows
from tightframe.search import Search

_SMALL = 3e7  # K * K * D up to which a pass over all pairs takes milliseconds
_NEAR = 2  # dimensions that a code may lack, to be the start of a large problem, whose time is for one descent or two
_NUDGE = 1e-4  # breaks the symmetry of a start, which may be a saddle
_FLAT = 4  # dimensions up to which hops are better than orbits
_PREPARING = 0.2  # seconds that building a code or a group may take; with less time left, starts need neither
_GROUPS = 32  # drawn in a round of symmetric starts
_SELECTION_STEPS = 20
# exponents of each stage, in units, and n if one start in n continues
_SELECTION = ((3.0, 15.0), 3), ((30.0, 60.0), 3), ((120.0, 250.0, 500.0, 1000.0), 1)
_OPTIMAL = 1e-13  # distance to the bound at which the search ends
_VERIFIED = 0.5  # share of the time up to which a sampled winner is compared with the code by all pairs
_THINNED = 4096  # vectors of a code up to which crowded ones are dropped, not the last ones
_CROWDED = 2000  # minimum number of points for lists of near pairs
_FEWEST = 5  # evaluations that make a stage of a descent worthwhile
_PROJECTIONS = 1 << 27  # maximum numbers in the maps that keep orbits symmetric, D x D each, 1 GiB in float64
_MELTED, _FROZEN = 300.0, 1e4  # first exponents of a relaxation, in units
_LAST = 3e5  # last exponent of a relaxation, in units
_HOPS = 20.0, 55.0, 150.0, 400.0, 1000.0  # exponents, in units, of the descents after a hop
_HOP_STEPS = 100
_CULLED = 2  # the first of these stages after which the worse half is dropped
_MARGIN = 3e-4  # in energy above the lowest minimum, in units, up to which others are polished
_LISTED = 30.0  # exponents, in units, from which only near neighbours count
_FRUITLESS = 300  # hops without a new lowest minimum, after which the search begins again
_SAME = 1e-4  # difference in energy, in units, below which two minima count as one
_HOPPED = ", then hops"
_NEIGHBOURS = 12, 24  # numbers of neighbours of a point in three and four dimensions
_RESERVED = 0.15  # of the time of a round, for the last descent
_LOOKUP = 20  # evaluations over which the cost of finding all neighbours is spread
_RELAXING_STAGES = 10 / 3  # for each power of ten
_MANY_PAIRS = 1 << 17  # minimum number of pairs for single precision
_SINGLE = 1 << 16  # exponents below which single precision suffices
_HISTORY = 1 << 28  # maximum numbers in the descent's history, 1 GiB in float32


def separate(
    num_points: int, dim: int, search: Search, *, caps: bool = True, code: Code | None = None
) -> tuple[Tensor, Running]:
    """Unit vectors (K, D), float64, with a small largest cosine, and the search that led there.

    See `prototypes.separated`. K >= 2 and D >= 1 with distinct unit vectors. The search also starts from the `code`,
    and the result is no worse, unless all pairs of one set take more than half of the search's time.
    """
    K, D = num_points, dim
    score = LargestCosine(search.seconds if math.isfinite(search.seconds) else None)
    running = Running(score, search, (K, D), cosine_bound(K, D).value + _OPTIMAL)
    warm_start = running.warm_start
    if code is not None:
        vectors = code.vectors(K) if code.K > _THINNED else thinned(code.vectors(), K)
        vectors = torch.nn.functional.pad(vectors, (0, D - code.D)).contiguous().to(search.device or "cpu")
        near = K * K * D <= _SMALL or D - code.D <= _NEAR
        if warm_start is None and near and code.cosine < random_cosine(K, D):
            warm_start = vectors
    rounds = _Rounds(K, D, running, caps, warm_start)

    def play(index: int) -> None:
        if index == 0 and code is not None:
            running.offer(vectors, code.name)
            if score.every > 1 and score.share <= _VERIFIED:
                running.reserve(score.share * search.seconds)
        rounds.play(index)

    with one_thread() if rounds.small else nullcontext():  # small products wait for each other's threads
        points = running.run(play)
    if code is not None and running.start != code.name and score.every > 1 and score.share <= _VERIFIED:
        running.best = float(largest_cosines(unit_rows(points.double())[None]))
        if running.best > code.cosine:  # the sample missed the nearest pair
            points, running.best, running.start = vectors, code.cosine, code.name
    running.remark = score.remark(K)
    return unit_rows(points.double()), running


class _Rounds:
    """The rounds of `separate`."""

    def __init__(self, K: int, D: int, search: Running, caps: bool, warm_start: Tensor | None):
        self.K, self.D, self.search = K, D, search
        self.seed = seed = search.search.seed
        self.device = torch.device(search.search.device or "cpu")
        self.small = K * K * D <= _SMALL
        self.polish_cost = 45 * (1.5e-8 * (K * D) ** 2 + 3e-11 * (K * D) ** 3)  # in seconds, a guess until timed
        self.polished = K * D <= LARGEST and self.polish_cost < search.remaining / 4
        self.unit = exponent_unit(cosine_bound(K, D).value)
        self.warm_start = warm_start
        self.share = search.remaining / 3  # of the time that one round of a batch may take, about
        self.symmetric = starts.Symmetric(K, D, torch.Generator().manual_seed(seed))
        self.polish_spent = 0.0
        self.reserve = 0.0  # seconds left for the end, once there is something to finish
        if self.small and not self.polished and math.isfinite(self.share):
            self.reserve = _RESERVED * self.share
        self.caps = cap_batches(K, D, seed, self.share) if caps else iter(())
        self.layers: FilledLayers | None = None
        if caps and self.small:
            self.layers = FilledLayers(
                K, D, self.unit, seed, self.share, clock=lambda: search.seconds, limit=search.search.seconds
            )
        self.blind = 0  # rounds without exact codes
        self.minima = Minima(torch.Generator().manual_seed(seed), _SAME / self.unit)
        kinds = [self._play_caps, self._play_layers, self._play_blind, self._play_symmetric, self._play_hops]
        if not self.polished:  # what isn't polished gains most from structure that is there
            kinds = [self._play_layers, self._play_blind, self._play_caps, self._play_symmetric, self._play_hops]
        self.scores = dict.fromkeys(kinds, math.inf)  # without kinds that are exhausted
        self.queue = [self._play_thinned, *kinds] if caps and self.small else kinds  # not played yet
        self.turn = 0

    def play(self, index: int) -> None:
        """One round: first each kind, and a warm start, once; then hops, orbits, and the best kind in turn."""
        self.generator = generator_of(self.search.search, index)
        self.ahead = 1
        if index == 0 and self.warm_start is not None:
            points = self._relax(unit_rows(self.warm_start.to(self.device, torch.float64)), "warm start", _MELTED)
            self._admit(points[None], ["warm start"])
        if self.search.points is None or not self.search.stopped():
            for kind in self._preferred():
                if self.search.remaining < _PREPARING and kind not in (self._play_hops, self._play_blind):
                    continue
                self.queue = [other for other in self.queue if other != kind]
                if (score := kind()) is not None:
                    if kind in self.scores:
                        self.scores[kind] = min(self.scores[kind], score)
                    break
                self.scores.pop(kind, None)
        self._finish()

    def _preferred(self) -> list[Callable[[], float | None]]:
        """The kinds of start for this round, the preferred one first, the inexhaustible one last."""
        if self.minima.fruitless > _FRUITLESS:
            self.minima.forget()
            return [self._play_blind]
        if self.queue:
            return [*self.queue, self._play_blind]
        self.turn += 1
        turn, place = divmod(self.turn, 3)
        if place != 2 and self._play_hops in self.scores:
            return [self._play_symmetric if place and self.D > _FLAT else self._play_hops, self._play_blind]
        ranked = sorted((kind for kind in self.scores if kind != self._play_hops), key=self.scores.__getitem__)
        rank = (turn & -turn).bit_length() - 1  # 0 in every second turn, 1 in every fourth, ...
        return [ranked[rank % len(ranked)], self._play_blind]

    def _play_caps(self) -> float | None:
        if (start := next(self.caps, None)) is None:
            return None
        self.ahead = 1 if self.small or self.search.round else 2  # half of a large problem's time is for free points
        return self._anneal(start)

    def _play_thinned(self) -> float | None:
        start = thinned_code(self.K, self.D)
        return None if start is None else self._play(start)

    def _play_layers(self) -> float | None:
        start = None if self.layers is None else self.layers.draw()
        return None if start is None else self._play(start)

    def _play(self, start: Start) -> float:
        """Anneal a part of a code, which may be exact."""
        least = int(largest_cosines(start.representatives).argmin())
        names = start.names or (start.name,)
        score = self.search.offer(start.representatives[least].to(self.device), names[least])
        return score if self.search.stopped() else self._anneal(start)

    def _play_blind(self) -> float | None:
        """Free points, and points with opposites in every second turn."""
        turn, self.blind = self.blind, self.blind + 1
        kind = starts.antipodal if self.small and turn % 2 and self.K % 2 == 0 and self.K > 2 else starts.free
        return self._anneal(kind(self.K, self.D, self.generator, self.share))

    def _play_symmetric(self) -> float | None:
        """Orbits of random groups."""
        if self.D == 1 or self.K * self.D**2 > _PROJECTIONS:
            return None
        if not self.small:
            return self._anneal(drawn[0]) if (drawn := self.symmetric.draw()) is not None else None
        field = self._draws()
        for stages, share in _SELECTION:
            ranked: list[tuple[float, Start, Callable[[float], None]]] = []
            for start, tell in field:
                batch = len(start.representatives)
                exponents = [torch.full((batch,), self.unit * each, dtype=torch.float64) for each in stages]
                points = self._descend(start, exponents, _SELECTION_STEPS, 1e-3)
                energies = SeparationEnergy(exponents[-1].to(points), start.orbits.to(points))(points)[0]
                ranked.append((float(energies.min()), replace(start, representatives=points), tell))
            ranked = sorted(ranked, key=lambda entry: entry[0])[: math.ceil(len(ranked) / share)]
            field = iter([(start, tell) for _, start, tell in ranked])
        scores = []
        for start, tell in field:
            scores.append(self._conclude(start))
            tell(scores[-1])
        return min(scores, default=None)

    def _draws(self) -> Iterator[tuple[Start, Callable[[float], None]]]:
        """Symmetric starts for a round, while a sixth of its time lasts: the selection takes as long again."""
        end = self.search.seconds + self.share / 6
        for _ in range(_GROUPS):
            if self.search.seconds < end and (drawn := self.symmetric.draw()) is not None:
                yield drawn

    def _play_hops(self) -> float | None:
        """Lower changed copies of the best points so far."""
        if self.D < 3 or not self.small:
            return None
        number = self._neighbours()
        cosines = self.K * (number + self.K // _LOOKUP if number else self.K)
        batch = starts.batch_size(cosines, 2 * self.share, fewest=32)
        if (drawn := self.minima.draw(batch)) is None:
            return None
        points, names = drawn
        names = [name.removesuffix(_HOPPED) + _HOPPED for name in names]
        for stage, exponent in enumerate(_HOPS):
            exponents = torch.full((len(points),), self.unit * exponent, dtype=torch.float64)
            points = self._descend(Start(points, Free(), names[0]), [exponents], _HOP_STEPS, 1e-4)
            if stage >= _CULLED and not self.search.stopped():  # the worse half rarely gives the lowest minimum
                best = SeparationEnergy(exponents.to(points))(points)[0].argsort()[: (len(points) + 1) // 2]
                points, names = points[best], [names[index] for index in best]
        self._admit(points, names)
        return self.search.offer(unit_rows(points[0].double()), names[0])

    def _admit(self, points: Tensor, names: list[str]) -> None:
        """Consider sets of points (R, K, D) as places to hop from, and to finish."""
        if self.small:
            exponents = points.new_full((len(points),), self.unit * _HOPS[-1])
            self.minima.admit(points, SeparationEnergy(exponents)(points)[0], names)

    def _neighbours(self) -> int | None:
        """The number of neighbours that count at high exponents, if far fewer than all points."""
        number = _NEIGHBOURS[self.D - 3] if 3 <= self.D < 3 + len(_NEIGHBOURS) else self.K
        return number if 3 * number < self.K else None

    def _anneal(self, start: Start) -> float:
        """Minimise the energy of a batch of starts; the largest cosine of the best."""
        batch = len(start.representatives)
        steps, patience = (80, 1e-5) if start.orbits.sizes is None else (40, 1e-3)  # symmetric ones are many
        stages = 9 if self.small else 14
        ends = math.log10(start.lowest), math.log10(start.highest)
        first = torch.logspace(*ends, batch + 2, dtype=torch.float64)[1:-1]
        growth = ((_HOPS[-1] if self.small else 1e4) / first) ** (1 / (stages - 1))
        exponents = [self.unit * first * growth**stage for stage in range(stages)]
        points = self._descend(start, exponents, steps, patience)
        return self._conclude(replace(start, representatives=points))

    def _conclude(self, start: Start) -> float:
        """Offer the best of a batch after its descent, and consider all as minima; the largest cosine of the best."""
        points = start.representatives
        orbits, batch = start.orbits.to(points), len(points)
        best = int(largest_cosines(points, orbits).argmin()) if batch > 1 else 0
        points = unit_rows(orbits.expand(points).double())
        names = list(start.names) or [start.name] * batch
        cosine = self.search.offer(points[best], names[best])
        if self.small:
            self._admit(points, names)
        elif cosine <= self.search.best:
            self._relax(points[best], names[best], _FROZEN)
        return cosine

    def _relax(self, points: Tensor, name: str, lowest: float = _HOPS[-1]) -> Tensor:
        """Points (K, D) after descent without symmetry, up to high exponents."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(self.K, self.D, dtype=torch.float64, generator=generator)
        start = Start(unit_rows(points + _NUDGE * noise.to(points))[None], Free(), name)
        number = 1 + round(_RELAXING_STAGES * math.log10(_LAST / lowest))
        stages = torch.logspace(math.log10(lowest), math.log10(_LAST), number, dtype=torch.float64)
        points = unit_rows(self._descend(start, list(self.unit * stages[:, None]), 30, 1e-4)[0].double())
        self.search.offer(points, name)
        return points

    def _descend(self, start: Start, exponents: list[Tensor], steps: int, patience: float) -> Tensor:
        """Representatives after descent through a schedule of exponents (R,), which share the remaining time."""
        points = start.representatives.to(self.device, torch.float64 if self.small else torch.float32)
        orbits = start.orbits.to(points)
        pairs = points.shape[0] * points.shape[1] * self.K
        if self.search.points is None:  # for Ctrl-C, and for problems that leave no time to descend
            warm = None if self.warm_start is None else unit_rows(self.warm_start.to(self.device, torch.float64))
            self.search.offer(orbits.expand(points)[0] if warm is None else warm, start.name)
        if not self.small and math.isfinite(self._left()):
            evaluations = self._left() / self.ahead / (3 * seconds_of_a_pass(points, orbits))
            stages = min(len(exponents), int(evaluations / _FEWEST))
            places = torch.linspace(0, len(exponents) - 1, stages).tolist() if stages > 1 else [len(exponents) // 3]
            exponents = [exponents[round(place)] for place in places] if evaluations >= 2 else []
        number = self._neighbours()
        crowded = self.K >= _CROWDED and self.K >= 40 * self.D
        sparse = crowded and isinstance(orbits, Free) and len(points) == 1
        for stage, exponent in enumerate(exponents):
            end = self.search.seconds + self._left() / self.ahead / (len(exponents) - stage)

            def stop(end: float = end) -> bool:
                return self.search.seconds > end

            if self.small and pairs > _MANY_PAIRS:
                points = points.to(torch.float32 if float(exponent.max()) < _SINGLE else torch.float64)
                orbits = orbits.to(points)
            p = exponent.to(points)
            energy: Objective = SeparationEnergy(p, orbits, stop)
            if sparse:
                energy = NearEnergy(p, stop)
            elif isinstance(orbits, Free) and self.small and number and float(p.min()) >= _LISTED * self.unit:
                energy = NearestEnergy(p, points, number)
            points = descend(
                points,
                energy,
                steps=steps if self.small or math.isinf(end) else 10 * steps,
                tolerance=(patience / exponent).to(points),
                memory=max(2, min(8, _HISTORY // (2 * points.numel()))),
                stop=stop,
            )
            if not self.small:
                self.search.offer(orbits.expand(points)[0], start.name)
        return points

    def _left(self) -> float:
        """Seconds left to explore, without the time reserved for the end."""
        return self.search.remaining - self.reserve

    def _finish(self) -> None:
        """Polish promising minima with at most a third of the time, or at its end.

        Minima too large to be polished descend further instead, one in a round.
        """
        if last := self._left() <= 0:
            self.reserve = 0.0
        while (index := self.minima.unfinished(_MARGIN / self.unit)) is not None and not self.search.stopped():
            points, name = self.minima.points[index], self.minima.names[index]
            begin = self.search.seconds
            if not self.polished:
                self._relax(points.to(self.device), name)
                self.minima.finished = [True] * len(self.minima.finished)
            elif last or math.isinf(self.share) or self.polish_spent + self.polish_cost < begin / 3:
                self.minima.finished[index] = True
                self.search.offer(polish(points, stop=self.search.stopped), name)
                self.polish_cost = self.search.seconds - begin
                self.polish_spent += self.polish_cost
            else:
                break
        if self.polished and not last:
            self.reserve = 0.0 if index is None else 1.2 * self.polish_cost
