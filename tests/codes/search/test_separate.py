"""The search: known optima, its budget, determinism, warm starts, interruption and errors."""

import math
import sys
from itertools import pairwise

import pytest
import torch

from fake_clock import Clock
from tightframe import prototypes
from tightframe.codes import Code, Search, best_built
from tightframe.codes.bounds import cosine_bound
from tightframe.codes.search import separate as separating
from tightframe.codes.search.energy import largest_cosines
from tightframe.errors import DimensionError, NonFiniteError, RangeError, ShapeError, ZeroVectorError
from tightframe.prototypes import Progress, code, separated


def highest(vectors: torch.Tensor) -> float:
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    return float((unit @ unit.T).fill_diagonal_(-2).max())


@pytest.mark.parametrize(
    ("K", "D", "cosine"),
    [
        (2, 1, -1),
        (2, 3, -1),
        (4, 3, -1 / 3),
        (5, 9, -1 / 4),
        (7, 2, math.cos(2 * math.pi / 7)),
        (7, 4, 0),
        (8, 4, 0),
        (8, 3, 0.261203874963741),  # the square antiprism, Schütte & van der Waerden 1951
        (10, 3, 0.404394325216758),  # Danzer 1986
        (12, 3, 5**-0.5),
        (10, 4, 1 / 6),
        (16, 5, 1 / 5),
        (24, 4, 1 / 2),
        (27, 6, 1 / 4),
    ],
)
def test_known_optima_without_exact_codes(K: int, D: int, cosine: float) -> None:
    found = separated(K, D, rounds=2, caps=False)
    assert highest(found.vectors) == pytest.approx(cosine, abs=1e-9)
    torch.testing.assert_close(found.vectors.norm(dim=1), torch.ones(K, dtype=torch.float64), rtol=0, atol=1e-14)


def test_no_result_beats_the_bound() -> None:
    for K, D in ((9, 3), (20, 5)):
        assert highest(separated(K, D, rounds=1).vectors) >= cosine_bound(K, D).value - 1e-12


def test_caps_of_exact_codes_find_what_blind_search_does_not() -> None:
    with_caps = separated(100, 16, rounds=1, target=0.1712)
    assert highest(with_caps.vectors) <= 0.1712
    assert with_caps.provenance["start"] == "cap of the kerdock-16"


@pytest.mark.usefixtures("few_draws")
def test_the_same_seed_and_rounds_give_the_same_prototypes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["tightframe.codes.search.separate"], "_GROUPS", 2)
    monkeypatch.setattr(sys.modules["tightframe.codes.search.separate"], "_HOP_STEPS", 10)
    first, second = (separated(9, 4, rounds=5, seed=5) for _ in range(2))  # rounds of every kind
    assert first == second
    assert first != separated(9, 4, rounds=5, seed=6)


def test_threads_are_given_back() -> None:
    threads = torch.get_num_threads()
    separated(5, 3, rounds=1)
    assert torch.get_num_threads() == threads


def test_a_target_ends_the_search() -> None:
    found = separated(50, 3, rounds=50, target=0.95)
    assert found.provenance["rounds"] == 1
    assert highest(found.vectors) <= 0.95


def test_time_ends_the_search(clock: Clock) -> None:
    clock.tick = 0.005
    separated(40, 7, time=1.5)
    assert 1.5 < clock.now < 2


def test_no_code_or_group_is_built_in_the_last_moments(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.tick = 1e-3
    module = sys.modules["tightframe.codes.search.separate"]
    for place, name in (
        *((module._Rounds, kind) for kind in ("_play_caps", "_play_layers", "_play_symmetric")),
        (module, "thinned_code"),
    ):
        monkeypatch.setattr(place, name, lambda *sizes: pytest.fail("takes longer than what is left"))
    assert separated(30, 5, time=0.15).provenance["start"] == "free"


def test_a_warm_start_is_never_made_worse() -> None:
    start = prototypes.code("24-cell", 23).vectors
    assert highest(separated(23, 4, rounds=1, warm_start=start).vectors) <= highest(start) + 1e-14
    lengths = torch.linspace(0.5, 4, 23, dtype=torch.float64)[:, None]
    found = separated(23, 4, rounds=1, warm_start=lengths * start)  # directions alone matter
    assert highest(found.vectors) <= highest(start) + 1e-12
    assert found.provenance["warm_start"] is True


def test_progress_falls_and_ctrl_c_returns_the_best_so_far() -> None:
    seen: list[Progress] = []

    def interrupt(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 3:
            raise KeyboardInterrupt

    found = separated(30, 5, rounds=10, progress=interrupt)
    assert found.provenance["interrupted"] is True
    assert len(seen) == 3
    assert highest(found.vectors) == pytest.approx(min(progress.score for progress in seen), abs=1e-12)
    assert all(later.score <= earlier.score for earlier, later in pairwise(seen))


def test_a_large_problem_runs_in_float32_tiles_and_keeps_its_time(clock: Clock) -> None:
    clock.tick = 0.005
    found = separated(2000, 64, time=4, caps=False)
    assert 4 < clock.now < 5
    assert found.vectors.dtype is torch.float64
    random = torch.randn(2000, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert highest(found.vectors) < highest(random) - 0.1
    assert float(largest_cosines(found.vectors[None])) == pytest.approx(highest(found.vectors), abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_classes": 1, "dim": 3}, DimensionError, "num_classes must be at least 2; got 1"),
        ({"num_classes": 5, "dim": 0}, DimensionError, "dim must be at least 1; got 0"),
        ({"num_classes": 3, "dim": 1}, DimensionError, "two unit vectors"),
        ({"num_classes": 5, "dim": 3, "warm_start": torch.eye(3)}, ShapeError, r"warm_start must be \(5, 3\)"),
        ({"num_classes": 3, "dim": 3, "warm_start": torch.eye(3).fill_diagonal_(0)}, ZeroVectorError, "warm_start"),
        ({"num_classes": 3, "dim": 3, "warm_start": torch.full((3, 3), math.inf)}, NonFiniteError, "warm_start"),
        ({"num_classes": 5, "dim": 3, "time": 0}, RangeError, "positive number of seconds"),
        ({"num_classes": 5, "dim": 3, "rounds": 0}, RangeError, "at least 1"),
    ],
)
def test_bad_requests(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        separated(**arguments)


@pytest.mark.usefixtures("few_draws")
def test_exact_codes_stay_exact_where_nothing_is_polished() -> None:
    found = separated(275, 22, rounds=2, target=1 / 6 + 1e-12)  # K * D = 6050
    assert highest(found.vectors) == pytest.approx(1 / 6, abs=1e-14)
    assert found.provenance["rounds"] == 1


def test_the_largest_seed() -> None:
    assert separated(7, 3, rounds=1, seed=(1 << 63) - 1).provenance["seed"] == (1 << 63) - 1


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_a_sampled_winner_is_compared_with_the_known_code_by_all_pairs(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    known = best_built(160, 8)  # a part of E8, cosine 1/2
    corner = torch.ones(8, dtype=torch.float64) / 8**0.5
    worse = corner.repeat(160, 1)  # the sampled rows are 69° and more from all others, and the others coincide
    worse[::10] = torch.cat([torch.eye(8), -torch.eye(8)]).double()
    monkeypatch.setattr("tightframe.codes.search.energy.seconds_of_a_pass", lambda points: share * 100)
    monkeypatch.setattr(separating._Rounds, "play", lambda self, index: self.search.offer(worse, "free"))
    vectors, running = separating.separate(160, 8, Search(time=100, rounds=1), code=known)
    if share <= 0.5:
        assert running.start == known.name and running.best == known.cosine
        assert highest(vectors) == pytest.approx(0.5, abs=1e-12)
        assert running.remaining + running.seconds == pytest.approx(80, abs=1)  # the rest is for the comparison
    else:
        assert running.facts["start"] == "free, judged by 1 in 30 of 160 points"
        assert running.remaining + running.seconds == pytest.approx(100, abs=1)
        assert highest(vectors) == pytest.approx(1)


@pytest.mark.parametrize(("dim", "pairs", "begins"), [(6, 0, True), (7, 0, False), (7, 1e9, True)])
def test_a_large_problem_begins_with_no_code_of_far_fewer_dimensions(
    monkeypatch: pytest.MonkeyPatch, dim: int, pairs: float, begins: bool
) -> None:
    """Its time is for one descent or two, and free points lead further than a code padded with zeros."""
    cell, seen = best_built(24, 4), []

    def play(self: separating._Rounds, index: int) -> None:
        seen.append(self.warm_start is not None)

    monkeypatch.setattr(separating, "_SMALL", pairs)
    monkeypatch.setattr(separating._Rounds, "play", play)
    separating.separate(24, dim, Search(rounds=1), code=cell)
    assert seen == [begins]


def test_a_sampled_winner_that_is_better_is_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    better = code("e8").vectors
    known = Code("crowded", 240, 8, 0.75, "", build=lambda n: better[:1].repeat(n, 1))
    monkeypatch.setattr("tightframe.codes.search.energy.seconds_of_a_pass", lambda points: 20.0)
    monkeypatch.setattr(separating._Rounds, "play", lambda self, index: self.search.offer(better, "free"))
    vectors, running = separating.separate(240, 8, Search(time=100, rounds=1), code=known)
    assert running.start == "free" and running.best == pytest.approx(0.5, abs=1e-12)
    assert highest(vectors) == pytest.approx(0.5, abs=1e-12)
