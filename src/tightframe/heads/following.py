"""Heads that follow the class means: `DeepNCM` compares with them, `GuidedHead` with the simplex ETF near to them."""

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

_ETF = 1e-3  # how far cosines of a start may be off: of an ETF in half precision


class DeepNCM(ComparisonHead):
    """Nearest class mean as a trainable head: logits -|z - mean_k|^2 / 2, means running along and no gradient in them.

    Call it with labels in training, `head(features, labels)`: the batch enters the means before the comparison.
    Without labels, or in eval mode, the means stay. A class that was never seen has logit -inf; before any class was
    seen, all logits are 0. Under "cosine" a mean of length zero has cosine 0 with any embedding.

    Args:
        num_classes, dim: K and D.
        in_features, logits, scale, projection: as in `PrototypeHead`.
        means: `OnlineMeans` (the default), `DecayedMeans` or `CondensedMeans` (K, D). For exact means of the whole
            training set, at any time: `head.means.set(statistics)`.

    Raises: as `PrototypeHead`; ShapeError for means of other classes or dimensions.
    Warns: as `PrototypeHead`; UntrainedWarning when called before any class has a mean, once (on the CPU).
    Source: Guerriero, Caputo & Mensink 2018. The released code has no 1/2 (say scale=1), compares before the batch
    enters the means, and puts the means of classes not seen at zero.

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
        """Whether every open class has a mean; without, `weight` and `bias` hold NaN."""
        return bool(self.means.seen[: self.out_features].all())

    @property
    def prototypes(self) -> Tensor:
        """(K, D), the class means in the head's dtype; NaN for classes not seen."""
        return self.means.means.to(self._scale.dtype)

    def compare(self, embeddings: Tensor, prototypes: Tensor | None = None) -> Tensor:
        vectors = self.prototypes if prototypes is None else prototypes
        vectors, seen = vectors[: self.out_features], self.means.seen[: self.out_features]
        some = seen.any()
        if can_look(some) and not some:
            message = (
                "no class has a mean yet, so all logits are 0; train with labels, or call means.update or means.set."
            )
            warn_once(self, message, UntrainedWarning)
        compared = seen & (norms(widened(vectors)) > 0) if self.logits == "cosine" else seen
        # where logits are masked, a vector near the others
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
        """Scale and projection as they were made, no samples seen."""
        super().reset_parameters()
        self.means.reset()


class GuidedHead(ComparisonHead):
    """A simplex ETF that turns towards the running class means: fixed geometry, guided pose.

    Called with labels in training, `head(features, labels)`, it takes the batch into the means and, every `every`-th
    time once each class was seen, replaces its ETF by the one nearest to the means and, with weight `proximal`, to the
    previous ETF: one thin SVD. The logits of that call are differentiable through it. Otherwise the ETF stays, as it
    does where all means are equal.

    Args:
        start: `Prototypes` that form a simplex ETF, K <= D + 1; lengths are kept.
        in_features, logits, scale, learn_scale, projection: as in `PrototypeHead`.
        means: `DecayedMeans` with decay 0.9 by default.
        proximal: >= 0, see `prototypes.guided`.

    Raises: as `PrototypeHead`, and as `prototypes.guided`.
    Source: Markou, Ajanthan & Gould 2024 (Guiding Neural Collapse), in closed form. The released code takes means of
    embeddings at length one, with weight 2 / (t + 1) for batch t, and subtracts the batch's mean from them and from
    what it compares.

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
        given = Prototypes.of(start)
        super().__init__(given.dim, in_features, projection, logits, scale, 1.0, learn_scale, device, dtype)
        if every < 1:
            raise RangeError(f"the ETF is renewed at every 1 or more calls; got {every}.")
        guided(given, given.vectors, proximal=proximal)  # raises where there is no such ETF
        _require_etf(given.vectors)
        self.means = DecayedMeans(given.num_classes, given.dim, device=device) if means is None else means
        if self.means.sums.shape != given.vectors.shape:
            raise ShapeError(f"means must be {tuple(given.vectors.shape)}; got {tuple(self.means.sums.shape)}.")
        self.proximal, self.every, self.ignore_index = proximal, every, ignore_index
        start = given.vectors.detach().clone()
        self.hold("vectors", start, saved=True, device=device, dtype=dtype or torch.get_default_dtype())
        self._calls, self._all_seen = 0, False

    @property
    def prototypes(self) -> Tensor:
        """(K, D), the ETF as it is now."""
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
        """The ETF nearest to the means; None where all are equal, as those of a dead layer, and no ETF is nearest."""
        try:
            etf = guided(Prototypes(self.vectors.to(means)), means, proximal=self.proximal)
        except ZeroVectorError:
            return None
        return etf.vectors.to(self.vectors)

    def reset_parameters(self) -> None:
        """Scale, projection and ETF as they were made, no samples seen."""
        super().reset_parameters()
        self.means.reset()
        self._calls, self._all_seen = 0, False

    def get_extra_state(self) -> Tensor:
        """The numbers of open classes and of labelled calls."""
        return torch.stack([super().get_extra_state(), torch.tensor(self._calls, device="cpu")])

    def set_extra_state(self, state: Tensor) -> None:
        """Inverse of `get_extra_state`. Raises: StateError where there are fewer prototypes."""
        super().set_extra_state(state[0])
        self._calls = int(state[1])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, proximal={self.proximal:g}, every={self.every}"


def _require_etf(vectors: Tensor) -> None:
    unit = unit_rows(vectors.detach().double())
    ideal = -1 / (len(unit) - 1)
    off = float((unit @ unit.mT - ideal).fill_diagonal_(0).abs().max())
    if not off < _ETF:
        raise RangeError(f"the start must be a simplex ETF, all cosines {ideal:.6g}; one is off by {off:.3g}.")
