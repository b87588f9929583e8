"""`PrototypeHead`: a classifier on fixed or learnt prototypes; `PrototypeModel`: a backbone with a head."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from tightframe.checks import Array, require_directions, require_finite
from tightframe.errors import ChoiceError, RangeError, ShapeError
from tightframe.head import follows_labels, is_head
from tightframe.heads.comparison import ComparisonHead
from tightframe.heads.margin import MARGINS, margins_of, warn_unattainable
from tightframe.heads.sampling import sampled_classes
from tightframe.layout import labelled_rows, like_features, rows_of
from tightframe.numerics import widened
from tightframe.prototypes import Prototypes


class SampledLogits(NamedTuple):
    """Logits of sampled classes.

    Attributes:
        logits: (N, M), rows in the order of the features, columns in the order of `classes`.
        labels: (N,) int64, columns of the own classes; `ignore_index` for ignored rows.
        classes: (M,) int64, the sampled classes in increasing order.

    >>> import torch
    >>> from tightframe import PrototypeHead
    >>> head = PrototypeHead(torch.eye(6))
    >>> result = head.sampled(torch.eye(6)[[5, 2]], torch.tensor([5, 2]), 2)
    >>> result.classes, result.labels, result.logits.shape
    (tensor([2, 5]), tensor([1, 0]), torch.Size([2, 2]))
    """

    logits: Tensor
    labels: Tensor
    classes: Tensor


class PrototypeHead(ComparisonHead):
    """A classifier head with one prototype per class, fixed (a buffer) or learnt (a parameter).

    Features after a ReLU are non-negative, and a row may be zero, with cosines 0: use the features before the ReLU, or
    a projection.

    Args:
        prototypes: `Prototypes` or vectors (K, D).
        in_features: width of the features. Default: D. If not D, a linear projection without bias is learnt.
        logits: "cosine", "dot", "euclidean", "squared-euclidean" or "pseudo-huber"; see `SIMILARITIES`.
        scale: scale of the logits, > 0. Default: 16 for cosines, else 1.
        learnable: train the prototypes, starting from these.
        learn_scale: train the scale (its logarithm).
        projection: module (N, in_features) -> (N, D) instead of the linear projection.
        open_classes: number of classes, from the first, that have logits. Default: all. For class-incremental learning,
            `open` adds classes and `append` adds prototypes; existing vectors do not change.
        delta: length at which "pseudo-huber" changes from quadratic to linear.
        margin: a number or one per class (K,), for "cosine" logits. In training, with labels, the own class's cosine is
            lowered by it, so that samples move nearer to their prototypes. `class_margins`: margins from counts.
        margin_kind: "angular" (ArcFace, cos(theta + m), in radians) or "cosine" (CosFace, cos(theta) - m). Where
            theta + m > pi, the released ArcFace subtracts m sin m from the cosine, which jumps; here 1 - cos m is
            subtracted, which is continuous and has the same gradient.
        easy_margin: apply an angular margin only to cosines above 0, as in the released code.
        ignore_index: label without a class.

    Shapes: features (N, D_in), (N, T, D_in) or (N, D_in, H, W) -> logits in the same layout; labels, for a margin, in
    that layout without D_in.
    Raises: as `Prototypes`; ChoiceError for unknown logits or margin kinds; RangeError for a scale or delta that is not
    positive, and for a margin out of range or without "cosine" logits; ZeroVectorError for a prototype of length zero
    under "cosine".
    Warns: ZeroVectorWarning for an embedding of length zero under "cosine", once (CPU only); MarginWarning for a margin
    that fixed prototypes can't reach.
    Source: Mettes et al. 2019; Zhu et al. 2021 and Yang et al. 2022 (fixed ETF); Yang et al. 2023 (incremental);
    Sainte Fare Garnot & Landrieu 2021 (distances); Shen et al. 2023 (equiangular: logits / 0.07); Deng et al. 2019,
    eq. 3, Wang et al. 2018, eq. 4, and Cao et al. 2019, eq. 12 (margins).

    >>> import torch
    >>> from tightframe import PrototypeHead
    >>> from tightframe import prototypes
    >>> head = PrototypeHead(prototypes.simplex(4, 8))
    >>> head(torch.randn(2, 8)).shape, head(torch.randn(2, 8, 5, 5)).shape, len(list(head.parameters()))
    (torch.Size([2, 4]), torch.Size([2, 4, 5, 5]), 0)
    >>> head = PrototypeHead(torch.eye(3), scale=10.0, margin=0.2, margin_kind="cosine")
    >>> head(torch.eye(3)[:2], torch.tensor([0, 2]))
    tensor([[ 8.,  0.,  0.],
            [ 0., 10., -2.]])
    """

    vectors: Tensor
    margins: Tensor | None

    def __init__(
        self,
        prototypes: Prototypes | Array,
        in_features: int | None = None,
        *,
        logits: str = "cosine",
        scale: float | None = None,
        learnable: bool = False,
        learn_scale: bool = False,
        projection: nn.Module | None = None,
        open_classes: int | None = None,
        delta: float = 1.0,
        margin: float | Array | None = None,
        margin_kind: str = "angular",
        easy_margin: bool = False,
        ignore_index: int = -100,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        start = Prototypes.of(prototypes)
        super().__init__(start.dim, in_features, projection, logits, scale, delta, learn_scale, device, dtype)
        self._require_usable(start.vectors)
        self.provenance = dict(start.provenance)
        vectors, dtype = start.vectors.detach().clone(), dtype or torch.get_default_dtype()
        self.hold("vectors", vectors, saved=True, learnt=learnable, device=device, dtype=dtype)
        if easy_margin and margin_kind != "angular":
            raise ChoiceError(f'easy_margin needs margin_kind="angular"; got {margin_kind!r}.')
        self.margin_kind, self.easy_margin, self.ignore_index = margin_kind, easy_margin, ignore_index
        margins = None if margin is None else margins_of(margin, start.num_classes, margin_kind, logits)
        if margins is not None and not learnable:
            warn_unattainable(start, margins, margin_kind)
        self.hold("margins", margins, saved=True, device=device, dtype=dtype)
        if open_classes is not None:
            self.open(open_classes)

    @property
    def prototypes(self) -> Tensor:
        """(K, D), including closed classes."""
        return self.vectors

    @property
    def learnable(self) -> bool:
        """Whether the prototypes are trained."""
        return "vectors" in self._parameters

    @property
    def follows_labels(self) -> bool:  # type: ignore[override]
        """Whether the head has a margin, which needs labels."""
        return self.margins is not None

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        logits = super().forward(features)
        if labels is None or self.margins is None or not self.training:
            return logits
        shape = rows_of(logits).shape
        rows, flat, counted = labelled_rows(logits, labels, shape[-1], shape[-1], self.ignore_index)
        return like_features(self._with_margins(rows, flat, flat, counted).view(shape))

    def sampled(
        self,
        features: Tensor,
        labels: Tensor,
        num_sampled: int,
        *,
        sparse: bool = True,
        generator: torch.Generator | None = None,
    ) -> SampledLogits:
        """Logits of the batch's own classes and of random other classes, for training with many classes.

        A step costs what it costs with `num_sampled` classes: O(N M + M D), whatever K is. The gradients are those of
        the whole head with a softmax over these classes only. There is no correction for the sampling.

        Args:
            features, labels: as in `forward`, in any layout; the rows of the result are flat.
            num_sampled: number of classes, at least 1; all own classes if there are more, and at most all K.
            sparse: give learnt prototypes a sparse gradient, for `torch.optim.SGD` without momentum and weight decay or
                `torch.optim.SparseAdam`; False: a dense one (K, D), for other optimisers.
            generator: random number generator on the device of the labels. Default: torch's.

        Raises: RangeError for num_sampled < 1; as `forward`; LabelError, DtypeError for wrong labels.
        Source: An et al. 2021 (Partial FC), on one process.

        >>> import torch
        >>> from tightframe import PrototypeHead
        >>> head = PrototypeHead(torch.randn(10_000, 8), learnable=True)
        >>> logits, labels, classes = head.sampled(torch.randn(4, 8), torch.tensor([5, 9_999, 5, 0]), 100)
        >>> torch.nn.functional.cross_entropy(logits, labels).backward()
        >>> logits.shape, bool((classes[labels] == torch.tensor([5, 9_999, 5, 0])).all()), head.vectors.grad.is_sparse
        (torch.Size([4, 100]), True, True)
        """
        if num_sampled < 1:
            raise RangeError(f"num_sampled must be at least 1; got {num_sampled}.")
        embeddings = self.embed(features)
        rows, flat, counted = labelled_rows(embeddings, labels, self.dim, self.out_features, self.ignore_index)
        classes = sampled_classes(flat[counted], self.out_features, num_sampled, generator)
        columns = torch.searchsorted(classes, flat).clamp_max(len(classes) - 1)
        logits = self.compare(rows, embedding(classes, self.vectors, sparse=sparse and self.learnable))
        if self.margins is not None and self.training:
            logits = self._with_margins(logits, columns, flat, counted)
        return SampledLogits(logits, torch.where(counted, columns, self.ignore_index), classes)

    def _with_margins(self, logits: Tensor, columns: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
        """Logits (N, M) in which the own class's, in `columns` (N,), has its margin; `labels` (N,) select margins."""
        assert self.margins is not None
        own = logits.gather(1, columns[:, None])
        scale = self.scale.to(widened(own))
        margins = self.margins.to(scale)
        margins = (margins[labels] if margins.ndim else margins.expand(len(labels)))[:, None]
        moved = MARGINS[self.margin_kind].moved(widened(own) / scale, margins, self.easy_margin) * scale
        return logits.scatter(1, columns[:, None], torch.where(counted[:, None], moved.to(own), own))

    @torch.no_grad()
    def append(self, prototypes: Prototypes | Array, margin: float | Array | None = None) -> None:
        """Append new classes (K', D) and open all classes; existing vectors do not change.

        Learnt prototypes become a new parameter: pass it to the optimiser. If the head has margins per class, `margin`
        (a number or (K',)) is that of the new classes. Raises: ShapeError if D differs; RangeError for a margin that is
        missing, superfluous or out of range.

        >>> import torch
        >>> from tightframe import PrototypeHead
        >>> head = PrototypeHead(torch.eye(3)[:2])
        >>> head.append(torch.eye(3)[2:])
        >>> head.out_features
        3
        """
        new = Prototypes.of(prototypes)
        before = self.prototypes
        if new.dim != before.shape[1]:
            raise ShapeError(f"new prototypes must have {before.shape[1]} dimensions; got {new.dim}.")
        self._require_usable(new.vectors)
        self._append_margins(margin, new.num_classes)
        start, vectors = (torch.cat([old, new.vectors.to(old)]) for old in (self._starts["vectors"], before))
        self._starts["vectors"], self.vectors = start, nn.Parameter(vectors) if self.learnable else vectors
        kinds = (part.get("constructor", "given vectors") for part in (self.provenance, new.provenance))
        self.provenance = {"constructor": " + ".join(kinds)}
        self.open(len(self.prototypes))

    def _append_margins(self, margin: float | Array | None, number: int) -> None:
        per_class = self.margins is not None and self.margins.ndim == 1
        if per_class != (margin is not None):
            fix = "pass margin= for the new classes" if per_class else "pass margin=None"
            raise RangeError(f"append takes a margin if the head has margins per class; {fix}.")
        if self.margins is None or margin is None:
            return
        values = margins_of(margin, number, self.margin_kind, self.logits).expand(number)
        for store in (self._starts, self._buffers):
            old = store["margins"]
            assert old is not None
            store["margins"] = torch.cat([old, values.to(old)])

    def extra_repr(self) -> str:
        kind = self.provenance.get("constructor", "given vectors")
        text = f"{super().extra_repr()}, {'learnt' if self.learnable else 'fixed'} {kind}"
        if self.margins is None:
            return text
        values = "per class" if self.margins.ndim else f"{self._starts['margins'].item():g}"
        return f"{text}, {self.margin_kind} margin {values}"

    def _require_usable(self, vectors: Tensor) -> None:
        if self.logits == "cosine":
            require_directions(vectors.detach(), "prototypes")
        else:
            require_finite(vectors.detach(), "prototypes")


class PrototypeModel(nn.Module):
    """A backbone with a head: inputs -> features -> logits.

    `labels=` is passed to heads that follow class means (`DeepNCM`, `GuidedHead`) or have a margin.

    Shapes: inputs as the backbone takes them; the head's logits, (N, K), (N, T, K) or (N, K, H, W).

    >>> import torch
    >>> from torch import nn
    >>> from tightframe import PrototypeHead, PrototypeModel
    >>> from tightframe import prototypes
    >>> model = PrototypeModel(nn.Linear(3, 8), PrototypeHead(prototypes.simplex(4, 8)))
    >>> model(torch.randn(5, 3)).shape, model.prototypes.shape
    (torch.Size([5, 4]), torch.Size([4, 8]))
    """

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, *inputs: Any, labels: Tensor | None = None, **options: Any) -> Tensor:
        features = self.backbone(*inputs, **options)
        if labels is not None and follows_labels(self.head):
            return self.head(features, labels)
        return self.head(features)

    def embed(self, *inputs: Any, **options: Any) -> Tensor:
        """Embeddings (..., D), for losses on embeddings."""
        features = self.backbone(*inputs, **options)
        head = self.head
        return head.embed(features) if is_head(head) else features

    @property
    def prototypes(self) -> Tensor:
        """(K, D), the head's prototypes."""
        return self.head.prototypes  # type: ignore[return-value]

    def get_classifier(self) -> nn.Module:
        """The head, under the name that timm uses."""
        return self.head
