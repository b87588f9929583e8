"""`SIMILARITIES`: similarities between embeddings and prototypes that published heads use as logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tightframe.numerics import directions, directions_or_zero, unit_embeddings, without_autocast


class Scores(Protocol):
    """(embeddings, prototypes, scale, delta) -> (N, K). `owner`: the head that warns once about zero embeddings."""

    def __call__(
        self, embeddings: Tensor, prototypes: Tensor, scale: Tensor, delta: float, owner: object = None
    ) -> Tensor: ...


@dataclass(frozen=True)
class Similarity:
    """A similarity between embeddings (N, D) and prototypes (K, D).

    Attributes:
        scores: see `Scores`; larger means nearer; multiplied by the scale (0-d); memory O(N K + N D + K D).
        rule: prototypes -> weight (K, D) and bias (K,) or None, with argmax of weight z + bias = argmax of the scores.
        scale: default factor of the scores.
        summary: formula. source: paper that trains with it.

    >>> import torch
    >>> from tightframe.heads import SIMILARITIES
    >>> embeddings, prototypes = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [3.0, 3.0]])
    >>> SIMILARITIES["euclidean"].scores(embeddings, prototypes, torch.tensor(1.0), 1.0).tolist()
    [[-5.0, -1.0]]
    """

    scores: Scores
    rule: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    scale: float
    summary: str
    source: str


def squared_distances(embeddings: Tensor, prototypes: Tensor) -> Tensor:
    """|z_n - p_k|^2, (N, D) and (K, D) -> (N, K), in float32 at least.

    From the Gram matrix about the prototypes' mean, so that a common offset costs no digits. The smallest distance of
    each row is computed from the difference, because the Gram matrix cancels when embeddings collapse on prototypes.
    """
    dtype = torch.promote_types(torch.promote_types(embeddings.dtype, prototypes.dtype), torch.float32)
    with without_autocast(embeddings.device):
        embeddings, prototypes = embeddings.to(dtype), prototypes.to(dtype)
        centre = prototypes.detach().mean(0)
        z, p = embeddings - centre, prototypes - centre
        squares = torch.addmm(p.square().sum(1), z, p.mT, alpha=-2) + z.square().sum(1, keepdim=True)
        nearest = squares.detach().argmin(1)
        exact = (embeddings - prototypes[nearest]).square().sum(1, keepdim=True)
        return squares.clamp_min(0).scatter(1, nearest[:, None], exact)


class _Root(torch.autograd.Function):
    """Square root with derivative zero at zero, a subgradient of the distance."""

    generate_vmap_rule = True

    @staticmethod
    def forward(squares: Tensor) -> Tensor:
        return squares.sqrt()

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad * torch.where(root > 0, 0.5 / torch.where(root > 0, root, 1.0), 0.0)


class _PseudoHuber(torch.autograd.Function):
    """delta (sqrt(1 + squares / delta^2) - 1); stores one matrix for the backward pass instead of autograd's four."""

    generate_vmap_rule = True

    @staticmethod
    def forward(squares: Tensor, delta: float) -> Tensor:
        ratio = squares / delta**2
        return ratio.div_((1 + ratio).sqrt_().add_(1)).mul_(delta)  # sqrt(1 + ratio) - 1 would cancel near zero

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.delta = inputs[1]  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        (squares,) = ctx.saved_tensors  # type: ignore[attr-defined]
        delta = ctx.delta  # type: ignore[attr-defined]
        return grad / (2 * (squares + delta**2).sqrt()), None


def root(squares: Tensor) -> Tensor:
    """Square root with derivative zero at zero, of any shape."""
    values: Tensor = _Root.apply(squares)
    return values


def _dot(embeddings: Tensor, prototypes: Tensor, scale: Tensor, delta: float, owner: object = None) -> Tensor:
    return embeddings @ (prototypes * scale).mT  # scaling (N, K) would cost more


def _cosine(embeddings: Tensor, prototypes: Tensor, scale: Tensor, delta: float, owner: object = None) -> Tensor:
    return unit_embeddings(embeddings, owner)[0] @ (directions(prototypes, "prototypes") * scale).mT


def _euclidean(embeddings: Tensor, prototypes: Tensor, scale: Tensor, delta: float, owner: object = None) -> Tensor:
    return root(squared_distances(embeddings, prototypes)) * -scale


def _squared_euclidean(
    embeddings: Tensor, prototypes: Tensor, scale: Tensor, delta: float, owner: object = None
) -> Tensor:
    return squared_distances(embeddings, prototypes) * -scale


def _pseudo_huber(embeddings: Tensor, prototypes: Tensor, scale: Tensor, delta: float, owner: object = None) -> Tensor:
    distances: Tensor = _PseudoHuber.apply(squared_distances(embeddings, prototypes), delta)
    return distances * -scale


def _products(prototypes: Tensor) -> tuple[Tensor, Tensor | None]:
    return prototypes, None


def _products_with_directions(prototypes: Tensor) -> tuple[Tensor, Tensor | None]:
    return directions_or_zero(prototypes)[0], None


def _nearest(prototypes: Tensor) -> tuple[Tensor, Tensor | None]:
    return prototypes, -prototypes.square().sum(1) / 2


_GUIDED = "Sainte Fare Garnot & Landrieu 2021"

SIMILARITIES: dict[str, Similarity] = {
    "dot": Similarity(_dot, _products, 1.0, "<z, p>", "Zhu et al. 2021"),
    "cosine": Similarity(
        _cosine,
        _products_with_directions,
        16.0,
        "cosine of the angle between z and p",
        "Mettes et al. 2019",
    ),
    "euclidean": Similarity(_euclidean, _nearest, 1.0, "-|z - p|", _GUIDED),
    "squared-euclidean": Similarity(_squared_euclidean, _nearest, 1.0, "-|z - p|^2", "Snell et al. 2017"),
    "pseudo-huber": Similarity(
        _pseudo_huber, _nearest, 1.0, "-delta (sqrt(1 + (|z - p| / delta)^2) - 1)", f"{_GUIDED}, released code"
    ),
}
"""Similarities by name, as in the `logits` argument of heads."""
