"""What the search reaches, against bounds, published recipes and random vectors; a line a case.

OMP_NUM_THREADS=2 python benchmarks/prototypes.py              # all, about half an hour
OMP_NUM_THREADS=2 python benchmarks/prototypes.py optima hundred
OMP_NUM_THREADS=1 python benchmarks/prototypes.py curves --out docs/curves.png  # quality against time, six minutes

The recipes are written from the papers: stochastic gradient steps on unit vectors that are renormalised after each.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tightframe.codes.bounds import cosine_bound
from tightframe.codes.random_vectors import random_cosine
from tightframe.codes.search.energy import largest_cosines
from tightframe.numerics import unit_rows
from tightframe.prototypes import Prototypes, best, separated

Curve = list[tuple[float, float]]
OPTIMA = [
    (24, 4, 1 / 2, 10), (27, 6, 1 / 4, 10), (56, 7, 1 / 3, 10), (16, 5, 1 / 5, 10), (12, 3, 5**-0.5, 10),
    (240, 8, 1 / 2, 10), (120, 4, (1 + 5**0.5) / 4, 30), (7, 4, 0, 10), (12, 6, 0, 10), (30, 20, 0, 10),
]  # fmt: skip


def highest(vectors: Tensor) -> float:
    """The largest cosine between two rows."""
    return float(largest_cosines(unit_rows(vectors.double())[None]))


def report(name: str, found: Prototypes, seconds: float, note: str = "") -> float:
    """Print a case's line: largest cosine, bound, random level."""
    K, D = found.vectors.shape
    cosine = highest(found.vectors)
    facts = found.provenance
    origin = facts.get("start", facts.get("code", facts["constructor"]))
    print(
        f"{name:30s} ({K}, {D})  {cosine:.12f}  bound {cosine_bound(K, D).value:.6f} random {random_cosine(K, D):.3f}  "
        f"{seconds:6.1f} s  {origin}  {note}",
        flush=True,
    )
    return cosine


def timed(build: Callable[[], Prototypes]) -> tuple[Prototypes, float]:
    """The result of a call and its seconds."""
    begin = time.monotonic()
    return build(), time.monotonic() - begin


def optima() -> None:
    """Known optima without exact codes; then how many symmetry-free rounds find them."""
    for K, D, cosine, limit in OPTIMA:
        found, seconds = timed(
            lambda K=K, D=D, cosine=cosine, limit=limit: separated(
                K, D, time=limit, caps=False, target=cosine + (1e-12 if cosine == 0 else 1e-9)
            )
        )
        excess = report("alone", found, seconds) - cosine
        met = "met" if excess <= (1e-12 if cosine == 0 else 1e-9) else "MISSED"
        print(f"{'':34s} excess {excess:.1e}, {met}", flush=True)
    for K, D, cosine in ((12, 3, 5**-0.5), (16, 5, 1 / 5), (27, 6, 1 / 4), (24, 4, 1 / 2), (56, 7, 1 / 3)):
        print(f"{'free starts, one at a time':34s} ({K}, {D})  {free_successes(K, D, cosine)} of 20 within 1e-6")


def free_successes(K: int, D: int, cosine: float, starts: int = 20) -> int:
    """Of so many single starts without symmetry, how many end within 1e-6 of the optimum."""
    from tightframe.codes.search.energy import SeparationEnergy
    from tightframe.codes.search.sphere import descend

    generator = torch.Generator().manual_seed(0)
    points = unit_rows(torch.randn(starts, K, D, dtype=torch.float64, generator=generator))
    scale = 1 / (1 - cosine)
    for exponent in torch.logspace(math.log10(8), 7, 16, dtype=torch.float64):
        p = torch.full((starts,), float(exponent) * scale, dtype=torch.float64)
        points = descend(points, SeparationEnergy(p), steps=100, tolerance=1e-5 / p)
    return int((largest_cosines(points) < cosine + 1e-6).sum())


def hundred() -> None:
    """(100, 16) and (120, 8): the search alone, and with caps of exact codes."""
    for limit, goal in ((15, 0.2065), (120, 0.2000)):
        found, seconds = timed(lambda limit=limit: separated(100, 16, time=limit, caps=False))
        report("alone", found, seconds, f"wanted {goal}")
    for limit, goal in ((10, 0.1712), (60, 0.17076)):
        found, seconds = timed(lambda limit=limit: best(100, 16, time=limit))
        report("best", found, seconds, f"wanted {goal}")
    found, seconds = timed(lambda: best(120, 8, time=60))
    report("best", found, seconds, "wanted 0.4660")


def large() -> None:
    """From (1000, 128) upwards: the search, exact codes, and what the search adds to them."""
    found, seconds = timed(lambda: separated(1000, 128, time=60, caps=False))
    report("alone", found, seconds, "wanted 0.080")
    for K, D, goal in ((10_000, 128, 0.1182), (100_000, 512, 0.0625)):
        found, seconds = timed(lambda K=K, D=D: best(K, D))
        report("best, without a search", found, seconds, f"wanted {goal}")
    found, seconds = timed(lambda: best(10_000, 128, time=120))
    report("best, searching from the code", found, seconds)
    found, seconds = timed(lambda: best(10_000, 100, time=120))
    report("best, where no code is near", found, seconds)


def recipe(K: int, D: int, gradient: Callable[[Tensor], Tensor], rate: float, seconds: float) -> Curve:
    """The largest cosine over time of gradient steps with momentum 0.9 on renormalised vectors."""
    points = unit_rows(torch.randn(K, D, generator=torch.Generator().manual_seed(0)))
    momentum = torch.zeros_like(points)
    begin, curve, lowest, step = time.monotonic(), [], 1.0, 0
    while time.monotonic() - begin < seconds:
        momentum = 0.9 * momentum + gradient(points)
        points = unit_rows(points - rate * momentum)
        step += 1
        if step % 50 == 0:
            lowest = min(lowest, highest(points))
            curve.append((time.monotonic() - begin, lowest))
    return curve


def hyperspherical_gradient(points: Tensor) -> Tensor:
    """Of the mean of row maxima (Mettes, van der Pol & Snoek 2019): a pair pulls at both its ends."""
    nearest = (points @ points.T).fill_diagonal_(-2).argmax(1)
    return (points[nearest].index_add(0, nearest, points)) / len(points)


def hinge_gradient(alpha: float) -> Callable[[Tensor], Tensor]:
    """Of the sum of ReLU(|cosine| - alpha) (Shen et al. 2023)."""

    def gradient(points: Tensor) -> Tensor:
        cosines = (points @ points.T).fill_diagonal_(0)
        return ((cosines.abs() > alpha) * cosines.sign()) @ points

    return gradient


def gram_gradient(points: Tensor) -> Tensor:
    """Of the squared distance of the Gram matrix to the simplex ETF's."""
    K = len(points)
    return (points @ points.T + 1 / (K - 1)).fill_diagonal_(0) @ points


def curves(out: Path, K: int = 100, D: int = 16, seconds: float = 60) -> None:
    """Draw the largest cosine against time: ours, and published recipes as they are given."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    def ours(caps: bool) -> Curve:
        seen: Curve = []
        separated(K, D, time=seconds, caps=caps, progress=lambda p: seen.append((p.seconds, p.score)))
        return seen

    welch = math.sqrt((K - D) / (D * (K - 1)))
    found: dict[str, Curve] = {
        "tightframe, caps of exact codes": ours(True),
        "tightframe, search alone": ours(False),
        "hyperspherical prototypes, lr 0.1": recipe(K, D, hyperspherical_gradient, 0.1, seconds),
        "hyperspherical prototypes, lr 0.01": recipe(K, D, hyperspherical_gradient, 0.01, seconds),
        "equiangular hinge at Welch": recipe(K, D, hinge_gradient(welch), 0.01, seconds),
        "Gram matching to an ETF": recipe(K, D, gram_gradient, 0.01, seconds),
    }
    bound, top = cosine_bound(K, D), 0.42
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, curve in found.items():
        times, cosines = zip(*[(max(t, 0.02), c) for t, c in curve], strict=True)
        outside = " (above the figure)" if min(cosines) > top else ""
        axes.step(times, cosines, where="post", label=f"{name}: {min(cosines):.4f}{outside}", lw=1.8)
        print(f"{name:38s} {min(cosines):.6f}")
    axes.axhline(bound.value, color="0.4", ls=":", label=f"{bound.name} bound: {bound.value:.4f}")
    axes.set(xscale="log", xlabel="seconds", ylabel="largest cosine", ylim=(bound.value - 0.01, top))
    axes.set_title(f"{K} vectors in {D} dimensions")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=150)
    print(f"wrote {out}")


def main() -> None:
    """Run the cases named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["optima", "hundred", "large", "curves"])
    parser.add_argument("--out", type=Path, default=Path("curves.png"))
    options = parser.parse_args()
    for case in options.cases:
        if case == "curves":
            curves(options.out)
        else:
            {"optima": optima, "hundred": hundred, "large": large}[case]()


if __name__ == "__main__":
    main()
