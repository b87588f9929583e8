"""Heads that follow the class means: `DeepNCM` compares with the means, `GuidedHead` with the nearest simplex ETF."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tightframe.checks import Array, can_look
from tightframe.errors import RangeError, ShapeError, UntrainedWarning, ZeroVectorError
from tightframe.heads.class_means import ClassMeans, DecayedMeans, OnlineMeans
from tightframe.heads.comparison import ComparisonHead
from tightframe.layout import like_features, rows_of
from tightframe.numerics import norms, unit_rows, widened
from tightframe.prototypes import Prototypes, guided
from tightframe.sharing import warn_once

_ETF = 1e-3  # tolerance of the cosines of an ETF in half precision


class DeepNCM(ComparisonHead):
    """Nearest-class-mean classifier as a trainable head: logits -|z - mean_k|^2 / 2, running means without gradient.

    In training, call `head(features, labels)`: the batch updates the means before the comparison. Without labels, or in
    eval mode, the means do not change. A class without samples has logit -inf; while no class has samples, all logits
    are 0. Under "cosine", a mean of length zero has cosine 0 with any embedding.

    Args:
        num_classes, dim: K and D.
        in_features, logits, scale, projection: as in `PrototypeHead`.
        means: `OnlineMeans` (default), `DecayedMeans` or `CondensedMeans` (K, D). `head.means.set(statistics)` sets
            exact means of the whole training set.

    Shapes: features (N, D_in), (N, T, D_in) or (N, D_in, H, W) -> logits in the same layout, K instead of D_in.
    Raises: as `PrototypeHead`; ShapeError if the means have a different shape.
    Warns: as `PrototypeHead`; UntrainedWarning if called before any class has a mean, once (CPU only).
    Source: Guerriero, Caputo & Mensink 2018. The released code has no factor 1/2 (pass scale=1), compares before it
    updates the means, and sets means of unseen classes to zero.

    >>> import torch
    >>> from tightframe.heads import DeepNCM
    >>> head = DeepNCM(3, 8)
    >>> head(torch.randn(30, 8), torch.arange(30) % 3).shape
    torch.Size([30, 3])
    """

    follows_labels = True

    def __init__(
        self,
        num_classes: int,
        dim: int,
        in_features: int | None = None,
        *,
        means: ClassMeans | None = None,
        logits: str = "squared-euclidean",
        scale: float = 0.5,
        projection: nn.Module | None = None,
        ignore_index: int = -100,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, in_features, projection, logits, scale, 1.0, False, device, dtype)
        self.means = OnlineMeans(num_classes, dim, device=device) if means is None else means
        if self.means.sums.shape != (num_classes, dim):
            raise ShapeError(f"means must be ({num_classes}, {dim}); got {tuple(self.means.sums.shape)}.")
        self.ignore_index = ignore_index

    @property
    def num_prototypes(self) -> int:
        """K."""
        return self.means.num_classes

    @property
    def decides_linearly(self) -> bool:  # type: ignore[override]
        """Whether every open class has a mean; otherwise `weight` and `bias` contain NaN."""
        return bool(self.means.seen[: self.out_features].all())

    @property
    def prototypes(self) -> Tensor:
        """(K, D), the class means in the head's dtype; NaN for classes without samples."""
        return self.means.means.to(self._scale.dtype)

    def compare(self, embeddings: Tensor, prototypes: Tensor | None = None) -> Tensor:
        vectors = self.prototypes if prototypes is None else prototypes
        vectors, seen = vectors[: self.out_features], self.means.seen[: self.out_features]
        some = seen.any()
        if can_look(some) and not some:
            message = (
                "no class has a mean yet, so all logits are 0. Train with labels, or call means.update or means.set."
            )
            warn_once(self, message, UntrainedWarning)
        compared = seen & (norms(widened(vectors)) > 0) if self.logits == "cosine" else seen
        # masked classes get the vector of another class
        other = vectors.index_select(0, compared.to(torch.uint8).argmax(0, keepdim=True))
        filled = torch.where(compared[:, None], vectors, torch.where(compared.any(), other, 1.0))
        logits = rows_of(super().compare(embeddings, filled))
        masked = torch.where(some & ~seen, -torch.inf, 0.0).to(logits.dtype)
        return like_features(torch.where(compared, logits, masked))

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        embeddings = self.embed(features)
        if labels is not None and self.training:
            self.means.update(embeddings.detach(), labels, ignore_index=self.ignore_index)
        return self.compare(embeddings)

    def reset_parameters(self) -> None:
        """Reset scale and projection, and remove all samples."""
        super().reset_parameters()
        self.means.reset()


class GuidedHead(ComparisonHead):
    """A simplex ETF that rotates towards the running class means: the geometry is fixed, the orientation is not.

    In training, call `head(features, labels)`: the batch updates the means. Once each class has samples, every
    `every`-th call replaces the ETF by the one nearest to the means and, with weight `proximal`, to the previous ETF,
    from one thin SVD; the logits of that call are differentiable through it. If all means are equal, the ETF stays.

    Args:
        start: `Prototypes` that form a simplex ETF, K <= D + 1; their lengths are kept.
        in_features, logits, scale, learn_scale, projection: as in `PrototypeHead`.
        means: running means. Default: `DecayedMeans` with decay 0.9.
        proximal: >= 0, see `prototypes.guided`.
        every: number of labelled calls per update of the ETF, >= 1.

    Shapes: features (N, D_in), (N, T, D_in) or (N, D_in, H, W) -> logits in the same layout, K instead of D_in.
    Raises: as `PrototypeHead` and `prototypes.guided`.
    Source: Markou, Ajanthan & Gould 2024 (Guiding Neural Collapse), in closed form. The released code takes means of
    unit embeddings with weight 2 / (t + 1) for batch t, and centres means and embeddings by the batch's mean.

    >>> import torch
    >>> from tightframe.heads import GuidedHead
    >>> from tightframe import prototypes
    >>> head = GuidedHead(prototypes.simplex(3, 8))
    >>> before = head.prototypes.clone()
    >>> _ = head(torch.randn(30, 8), torch.arange(30) % 3)
    >>> bool((head.prototypes == before).all())
    False
    """

    follows_labels = True
    vectors: Tensor

    def __init__(
        self,
        start: Prototypes | Array,
        in_features: int | None = None,
        *,
        means: ClassMeans | None = None,
        proximal: float = 1e-3,
        every: int = 1,
        logits: str = "cosine",
        scale: float | None = None,
        learn_scale: bool = False,
        projection: nn.Module | None = None,
        ignore_index: int = -100,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        etf = Prototypes.of(start)
        super().__init__(etf.dim, in_features, projection, logits, scale, 1.0, learn_scale, device, dtype)
        if every < 1:
            raise RangeError(f"every must be at least 1; got {every}.")
        guided(etf, etf.vectors, proximal=proximal)  # raises for a wrong shape or proximal
        _require_etf(etf.vectors)
        self.means = DecayedMeans(etf.num_classes, etf.dim, device=device) if means is None else means
        if self.means.sums.shape != etf.vectors.shape:
            raise ShapeError(f"means must be {tuple(etf.vectors.shape)}; got {tuple(self.means.sums.shape)}.")
        self.proximal, self.every, self.ignore_index = proximal, every, ignore_index
        vectors = etf.vectors.detach().clone()
        self.hold("vectors", vectors, saved=True, device=device, dtype=dtype or torch.get_default_dtype())
        self._calls, self._all_seen = 0, False

    @property
    def prototypes(self) -> Tensor:
        """(K, D), the current ETF."""
        return self.vectors

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        embeddings = self.embed(features)
        turned = None
        if labels is not None and self.training:
            means = self.means.update(embeddings, labels, ignore_index=self.ignore_index)
            self._calls += 1
            self._all_seen = self._all_seen or bool(self.means.seen.all())
            if self._all_seen and self._calls % self.every == 0:
                turned = self._turned(means)
                self.vectors = self.vectors if turned is None else turned.detach()
        return self.compare(embeddings, None if turned is None else turned[: self.out_features])

    def _turned(self, means: Tensor) -> Tensor | None:
        """The ETF nearest to the means; None if all means are equal, for example after a dead layer."""
        try:
            etf = guided(Prototypes(self.vectors.to(means)), means, proximal=self.proximal)
        except ZeroVectorError:
            return None
        return etf.vectors.to(self.vectors)

    def reset_parameters(self) -> None:
        """Reset scale, projection and ETF, and remove all samples."""
        super().reset_parameters()
        self.means.reset()
        self._calls, self._all_seen = 0, False

    def get_extra_state(self) -> Tensor:
        """Numbers of open classes and of labelled calls, for `state_dict`."""
        return torch.stack([super().get_extra_state(), torch.tensor(self._calls, device="cpu")])

    def set_extra_state(self, state: Tensor) -> None:
        """Inverse of `get_extra_state`. Raises: StateError if there are fewer prototypes."""
        super().set_extra_state(state[0])
        self._calls = int(state[1])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, proximal={self.proximal:g}, every={self.every}"


def _require_etf(vectors: Tensor) -> None:
    unit = unit_rows(vectors.detach().double())
    ideal = -1 / (len(unit) - 1)
    off = float((unit @ unit.mT - ideal).fill_diagonal_(0).abs().max())
    if not off < _ETF:
        raise RangeError(
            f"start must be a simplex ETF with all cosines {ideal:.6g}; one cosine differs by {off:.3g}. "
            "Use prototypes.simplex(K, D)."
        )
