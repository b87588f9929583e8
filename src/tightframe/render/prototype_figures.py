"""Pictures of prototypes: cosines, angles with their bounds, and the vectors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tightframe.codes import Certificate
from tightframe.errors import MissingExtraError
from tightframe.numerics import norms, unit_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

try:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter
except ImportError:
    raise MissingExtraError("matplotlib", "figures") from None

_GRAM = 512  # maximum number of vectors in the Gram matrix
_COUNTED = 2000  # maximum number of vectors for which all pairs are counted
_SAMPLED, _TOGETHER = 1_000_000, 10_000  # number of random pairs for more vectors, and per step
_BINS = 81  # odd, so that a single angle is in the middle of a bin
_POINTS = 2000  # maximum number of vectors in a picture of vectors
_LABELLED = 30  # maximum number of numbered vectors
_CONTACT = 1e-6  # vectors touch if their cosine is within this of the largest
_EDGES = 4000  # maximum number of contacts drawn
_TIED = 1e-6  # singular values with a smaller relative difference count as equal
_INNER = 0.5  # a projection inside this radius is enlarged, without the unit circle
_INK, _ACCENT, _GREEN, _PALE = "#1b3a57", "#c8452f", "#2f8a57", "#9db4c8"
_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # text that stays text
    "svg.fonttype": "none",
}


def prototype_figure(vectors: Tensor, certificate: Certificate) -> Figure:
    """Three panels of (K, D) vectors: Gram matrix of cosines, angles with bounds, and a picture of the vectors.

    Vectors in at most three dimensions are shown as they are, others in their first two principal directions. Of many
    vectors only a part is drawn, as the panel's title says; memory holds at most a few million cosines.
    """
    unit = unit_rows(vectors.detach().double().cpu())
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(13, 4.2), layout="constrained")
        gram, angles = (figure.add_subplot(1, 3, place) for place in (1, 2))
        picture = figure.add_subplot(1, 3, 3, projection="3d" if unit.shape[1] == 3 else None)
        _draw_gram(figure, gram, unit)
        _draw_angles(angles, unit, certificate)
        if unit.shape[1] == 3:
            _draw_sphere(picture, unit, certificate.max_cosine)
        else:
            _draw_plane(picture, unit)
    return figure


def save_figure(vectors: Tensor, certificate: Certificate, path: Path) -> None:
    """Write `prototype_figure` to a .png, .pdf or .svg."""
    figure = prototype_figure(vectors, certificate)
    with matplotlib.rc_context(_STYLE):
        figure.savefig(path, dpi=160)


def _draw_gram(figure: Figure, axes: Axes, unit: Tensor) -> None:
    """Draw the cosines with colours symmetric about zero, without the diagonal of ones, which would dominate."""
    K = len(unit)
    shown = unit[_evenly(K, _GRAM)]
    cosines = (shown @ shown.mT).fill_diagonal_(math.nan)
    most = max(cosines.nan_to_num().abs().max().item(), 1e-9)
    edges = (-0.5, len(shown) - 0.5, len(shown) - 0.5, -0.5)
    image = axes.imshow(cosines.numpy(), cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest", extent=edges)
    axes.set_facecolor("#e8e8e8")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_title(f"Cosines of {_some(len(shown), K)}, without the diagonal")
    if len(shown) < K:
        axes.set_xticks([])
        axes.set_yticks([])
    else:
        axes.set_xlabel("vector")
        axes.set_ylabel("vector")
    bar = figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label("cosine")


def _draw_angles(axes: Axes, unit: Tensor, certificate: Certificate) -> None:
    """Draw a histogram of angles, and lines at the smallest angle, its bound and the best known one."""
    angles, title = _angles(unit)
    bound, code = certificate.bound, certificate.best_listed
    lines: list[tuple[str, float, Any, str]] = [("smallest", certificate.min_angle, "-", _INK)]
    if code is not None:
        lines.append(("best in the table", _degrees(code.cosine), (0, (5, 3)), _GREEN))
    lines.append((f"{bound.name} bound", _degrees(bound.value), (0, (1, 1.5)), _ACCENT))
    places = [angle for _, angle, _, _ in lines]
    low, high = min(places), max(*places, angles.max().item())
    margin = max(0.06 * (high - low), 1.0)
    low, high = max(low - margin, 0.0), min(high + margin, 181.0)
    axes.hist(angles.numpy(), bins=_BINS, range=(low, high), color=_PALE)
    for name, angle, style, colour in lines:
        axes.axvline(angle, linestyle=style, color=colour, linewidth=1.6, label=f"{name} {angle:.3f}°")
    axes.set_title(title)
    axes.set_xlabel("angle in degrees")
    axes.set_ylabel("pairs")
    axes.set_xlim(low, high)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)  # room for the legend
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.legend(loc="upper right", frameon=False, fontsize=8)


def _angles(unit: Tensor) -> tuple[Tensor, str]:
    """Angles of all pairs in degrees, or of random pairs if there are many, and a title."""
    K = len(unit)
    total = K * (K - 1) // 2
    if K <= _COUNTED:
        i, j = torch.triu_indices(K, K, offset=1)
        cosines, title = (unit @ unit.mT)[i, j], f"Angles of {total:,} {'pair' if total == 1 else 'pairs'}"
    else:
        generator = torch.Generator().manual_seed(0)
        i = torch.randint(K, (_SAMPLED,), generator=generator)
        j = (i + torch.randint(1, K, (_SAMPLED,), generator=generator)) % K
        parts = zip(i.split(_TOGETHER), j.split(_TOGETHER), strict=True)
        cosines = torch.cat([(unit[one] * unit[other]).sum(1) for one, other in parts])
        title = f"Angles of {_SAMPLED:,} random pairs of {total:,}"
    return cosines.clamp(-1, 1).arccos().rad2deg().round(decimals=6), title


def _draw_plane(axes: Axes, unit: Tensor) -> None:
    """Draw vectors of the plane as arrows to the unit circle, others by two principal coordinates."""
    K, D = unit.shape
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.add_patch(Circle((0, 0), 1, fill=False, color="#bbbbbb", linewidth=0.8))
    if D <= 2:
        points = torch.nn.functional.pad(unit, (0, 2 - D))
        axes.set_title(f"Directions of {_some(K, K)}")
    else:
        points, axis = principal_plane(unit[_evenly(K, _POINTS)])
        axes.set_title(f"{_some(len(points), K)} projected onto\n{axis}")
        share, farthest = points.square().sum() / len(points), norms(points).max()
        note = f"{share:.1%} of the squared lengths; the longest has {farthest:.2f} of its length"
        axes.text(0.5, 0.0, note, transform=axes.transAxes, ha="center", va="top", fontsize=8)
        if farthest < _INNER:
            axes.patches[0].remove()
    limit = 1.18 * max(norms(points).max().item(), 1.0 if axes.patches else 0.0)
    axes.set_xlim(-limit, limit)
    axes.set_ylim(-limit, limit)
    x, y = points.mT.numpy()
    if K <= _LABELLED:
        for row in range(K):
            axes.plot([0, x[row]], [0, y[row]], color=_PALE, linewidth=1, zorder=1)
        _label(axes, points, 0.09 * limit)
    axes.scatter(x, y, s=_size(len(points)), color=_INK, zorder=2, linewidths=0)


def principal_plane(unit: Tensor) -> tuple[Tensor, str]:
    """(K, 2) coordinates in two principal directions of (K, D) vectors, D > 2, and a description.

    If more than two directions are equally good, as for a simplex ETF, the plane is the one in which the vectors lie
    nearest to a regular polygon in order; the ETF is then that polygon.
    """
    K = len(unit)
    _, values, directions = torch.linalg.svd(unit, full_matrices=False)
    tied = int((values >= values[1] * (1 - _TIED)).sum())
    fixed = int((values > values[1] * (1 + _TIED)).sum())  # 1 if the first direction is better than the second
    if tied == 2:
        return unit @ directions[:2].mT, "the first two principal directions"
    coordinates = unit @ directions[:tied].mT
    turns = torch.arange(K, dtype=torch.float64) * (2 * math.pi / K)
    around = torch.stack([turns.cos(), turns.sin()], dim=1)
    if fixed:
        free = coordinates[:, 1:]
        second = free @ torch.nn.functional.normalize(free.mT @ around[:, 1], dim=0)
        return torch.stack([coordinates[:, 0], second], dim=1), f"2 of {tied} principal directions"
    left, _, right = torch.linalg.svd(coordinates.mT @ around, full_matrices=False)
    return coordinates @ (left @ right), f"2 of {tied} equal principal directions"


def _draw_sphere(axes: Any, unit: Tensor, max_cosine: float) -> None:
    """Draw points on the sphere, with lines between nearest ones; the far side is pale."""
    shown = unit[_evenly(len(unit), _POINTS)]
    azimuth, elevation = math.radians(axes.azim), math.radians(axes.elev)
    towards = torch.tensor(
        [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)],
        dtype=torch.float64,
    )
    u = torch.linspace(0, 2 * math.pi, 61)[:, None]
    v = torch.linspace(0, math.pi, 31)
    sphere = (u.cos() * v.sin(), u.sin() * v.sin(), v.cos().expand(61, 31))
    axes.computed_zorder = False
    axes.plot_surface(
        *(part.numpy() for part in sphere), color="#e3ebf2", alpha=0.4, linewidth=0, shade=False, zorder=1
    )
    i, j = torch.triu_indices(len(shown), len(shown), offset=1)
    touching = ((shown @ shown.mT)[i, j] > max_cosine - _CONTACT).nonzero()[:_EDGES, 0]
    for start, end in zip(shown[i[touching]], shown[j[touching]], strict=True):
        facing = bool((start + end) @ towards > 0)
        ends = torch.stack([start, end]).mT.numpy()
        axes.plot(*ends, color=_ACCENT, alpha=0.9 if facing else 0.3, linewidth=1.2, zorder=2 if facing else 0)
    front = shown @ towards > 0
    for part, alpha, order in ((~front, 0.35, 0), (front, 1.0, 3)):
        places = shown[part].mT.numpy()
        axes.scatter(
            *places, s=_size(len(shown)), color=_INK, alpha=alpha, linewidths=0, depthshade=False, zorder=order
        )
    if len(shown) <= _LABELLED:
        across = shown - (shown @ towards)[:, None] * towards  # labels are offset in the plane of the picture
        up = torch.tensor([0, 0, 1.0], dtype=torch.float64)
        across[norms(across) < 0.4] = up - (up @ towards) * towards
        for row, place in enumerate((shown + 0.13 * unit_rows(across)).tolist()):
            alpha = 1.0 if front[row] else 0.45
            axes.text(*place, str(row), ha="center", va="center", fontsize=8, alpha=alpha, zorder=4)
    axes.set_box_aspect((1, 1, 1), zoom=1.45)
    axes.set_axis_off()
    contacts = "contact" if len(touching) == 1 else "contacts"
    edges = f"{'the first ' if len(touching) == _EDGES else ''}{len(touching):,} {contacts}"
    axes.set_title(f"{_some(len(shown), len(unit))} and {edges}")


def _label(axes: Axes, points: Tensor, offset: float) -> None:
    """Number the points on the outside; coinciding points share a label, and overlapping labels are left out."""
    places: dict[tuple[float, float], list[int]] = {}
    for row, (x, y) in enumerate(points.tolist()):
        places.setdefault((round(x, 3), round(y, 3)), []).append(row)
    labels: list[tuple[float, float]] = []
    for (x, y), rows in places.items():
        length = math.hypot(x, y)
        right, up = (x / length, y / length) if length > 1e-3 else (0.0, 1.0)
        spot = x + offset * right, y + offset * up
        if all(math.dist(spot, other) > 0.8 * offset for other in (*labels, *places)):
            labels.append(spot)
            side = "center" if len(rows) == 1 or abs(right) < 0.5 else "left" if right > 0 else "right"
            axes.text(*spot, ", ".join(map(str, rows)), ha=side, va="center", fontsize=8)


def _some(shown: int, total: int) -> str:
    return f"{total:,} vectors" if shown == total else f"{shown:,} of {total:,} vectors"


def _evenly(total: int, most: int) -> Tensor:
    """Indices of all rows, or of `most` evenly spaced rows."""
    return torch.linspace(0, total - 1, min(total, most), dtype=torch.float64).round().long()


def _size(count: int) -> float:
    """Area of a marker; larger for fewer points."""
    return min(40.0, max(4.0, 2000 / count))


def _degrees(cosine: float) -> float:
    return math.degrees(math.acos(cosine))
