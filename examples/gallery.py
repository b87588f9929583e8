"""Runs an example of the gallery: prints its table, checks its claim, and with --write renews its page.

Every example calls `run` with four functions. Its page is docs/gallery/NAME.md, its figure docs/gallery/NAME.svg; the
page's text marked "output" is the printed table.
"""

from __future__ import annotations

import argparse
import inspect
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cross_entropy

DOCS = Path(__file__).parents[1] / "docs" / "gallery"
OUTPUT = re.compile(r"^(```text output\n).*?^(```)$", flags=re.M | re.S)
Results = TypeVar("Results")


def require(condition: bool, claim: str) -> None:
    """Ends the example with an error unless the claim holds."""
    if not condition:
        raise SystemExit(f"claim does not hold: {claim}")


def unconstrained_minimum(W: Tensor, H: Tensor, labels: Tensor, decay: float) -> tuple[Tensor, Tensor, float]:
    """Classifier (K, D), free features (N, D) and loss where L-BFGS from W and H ends, in float64.

    The loss is mean cross-entropy + decay / 2 (|W|^2 + |H|^2).
    """
    W, H = W.clone().requires_grad_(), H.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [W, H], max_iter=1000, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(H @ W.T, labels) + decay / 2 * (W.square().sum() + H.square().sum())
        loss.backward()
        return loss

    optimizer.step(objective)
    return W.detach(), H.detach(), objective().item()


def run(
    compute: Callable[[], Results],
    *,
    table: Callable[[Results], str],
    figure: Callable[[Results], Figure],
    check: Callable[[Results], None],
) -> None:
    """Compute, print the table and the time, save the figure, check the claim.

    `compute` takes no arguments; `table` and `figure` show its results; `check` calls `require`.
    """
    script = Path(inspect.getfile(compute))
    parser = argparse.ArgumentParser(description=inspect.getdoc(inspect.getmodule(compute)))
    parser.add_argument("--out", type=Path, default=Path("runs/gallery"), help="folder for the figure")
    parser.add_argument("--write", action="store_true", help="renew the figure and the table of the page")
    parser.add_argument("--threads", type=int, default=2, help="threads that torch uses (default: 2)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    begin = time.monotonic()
    results = compute()
    seconds = time.monotonic() - begin
    printed = table(results).rstrip() + "\n"
    print(printed)
    print(f"{seconds:.0f} s")
    folder = DOCS if options.write else options.out
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"{script.stem}.svg"
    with matplotlib.rc_context({"svg.hashsalt": script.stem}):  # equal results give equal files
        figure(results).savefig(picture, metadata={"Date": None})
    print(f"figure {picture}")
    if options.write:
        page = DOCS / f"{script.stem}.md"
        text, places = OUTPUT.subn(lambda found: found[1] + printed + found[2], page.read_text(encoding="utf-8"))
        if places != 1:
            raise SystemExit(f"{page} must have one text marked output; got {places}")
        page.write_text(text, encoding="utf-8")
    check(results)
    print("the claim holds")
