"""Optima of unconstrained-features models for any class counts: classifier and free features at the global minimum.

Both penalties together are a nuclear norm (Zhu et al. 2021): with X = Z D^(1/2), Z the logits of one sample per class
and D = diag(n), the minimum of lambda_W/2 |W|^2 + lambda_H/2 sum_k n_k |h_k|^2 over W H = Z is tau |X|_*, where
tau = sqrt(lambda_W lambda_H). The problem is then convex in X and the bias, so a feasible point of the dual bounds the
distance of any X from the optimum. There is an optimum invariant under exchange of classes with equal size, weight and
offset, so the solver works with `ClassGroups`.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tightframe.checks import require_non_negative, require_positive
from tightframe.errors import RangeError, SearchWarning
from tightframe.numerics import gram_cosines
from tightframe.theory.class_groups import ClassGroups, Counts, PerClass, require_counts, require_label_smoothing
from tightframe.theory.nuclear_norm import Curvature, minimise

Array = npt.NDArray[np.float64]

_GAP = 1e-10  # a larger duality gap, relative to the loss, gives a warning; below 1e-12 is usual
_NO_LOGIT = 1e-9  # smaller singular values of the logits are rounding
_SAME_ROW = 1e-7  # rows closer than this share of the longest row coincide


@dataclass(frozen=True, eq=False)
class UnconstrainedOptimum:
    """The global optimum of an unconstrained-features model, float64 on the CPU.

    At the optimum all features of a class are equal; W and H are determined up to a rotation of the feature space.

    Attributes:
        counts: number of samples per class, (K,).
        classifiers: Gram matrix W W^T of the classifier's rows, (K, K).
        means: Gram matrix of the class features, about the origin, (K, K).
        logits: W H without the bias, (K, K); entry (k, j) is the logit of class k for samples of class j.
        bias: (K,), or None for a model without bias.
        loss: value of the objective, including penalties.
        gap: upper bound on `loss` minus the optimum, from a feasible point of the dual; up to rounding.
        rank: rank of W H, at most K - 1 under cross-entropy.
        merged: groups of labels with coincident classifier rows.
    """

    counts: Tensor
    classifiers: Tensor
    means: Tensor
    logits: Tensor
    bias: Tensor | None
    loss: float
    gap: float
    rank: int
    merged: list[list[int]]

    @property
    def classifier_cosines(self) -> Tensor:
        """Cosines between the classifier's rows, (K, K), about the origin; NaN for a zero row."""
        return gram_cosines(self.classifiers)

    @property
    def mean_cosines(self) -> Tensor:
        """Cosines between the class features, (K, K), about the origin; NaN for a zero feature."""
        return gram_cosines(self.means)


def cross_entropy_optimum(
    counts: Counts,
    weight_decay_w: float,
    weight_decay_h: float,
    weight_decay_b: float | None = None,
    *,
    label_smoothing: float = 0.0,
    class_weights: PerClass | None = None,
    logit_adjustment: float | PerClass | None = None,
) -> UnconstrainedOptimum:
    """The minimum of (1/N) sum of CE(W h_i + b, y_i) + lambda_W/2 |W|^2 + lambda_H/2 |H|^2 + lambda_b/2 |b|^2.

    For any class counts and any feature dimension D >= K - 1, certified by a duality gap. Equal counts give the simplex
    ETF in closed form, with the logit gap max(0, ln(1/sqrt(n lambda_W lambda_H) - K + 1)). As both decays go to zero
    the optimum slowly approaches `seli`; for larger decays classes merge: see `merging_classes`.

    The options are those of torch's `cross_entropy(logits + a, labels, weight=w, label_smoothing=e)`, a weighted mean.
    A sample of class j then costs T_j CE(q_j, softmax(logits + a)) with q_jk = ((1 - e) w_j [k = j] + e w_k / K) / T_j,
    where T_j normalises q_j. This is convex in the logits, with gradient T_j (p_j - q_j); the nuclear norm and its
    certificate hold with q_j instead of the one-hot label:

    * Label smoothing with equal counts gives the simplex ETF, with the logit gap
      ln(1/(sqrt(n lambda_W lambda_H) + e/K) - K + 1), which stays bounded as the decays go to zero.
    * Classes with equal n, w and a merge if sqrt(n) w (1 - e) / sum(n w) <= sqrt(lambda_W lambda_H), for any offsets.
    * A free bias absorbs the offsets: W H and b + a do not depend on them.

    Args:
        counts: number of samples per class.
        weight_decay_w, weight_decay_h: lambda_W and lambda_H, > 0, factors of half squares, as weight decay in torch.
        weight_decay_b: lambda_b >= 0; 0: free bias; None: no bias. The bias has mean zero.
        label_smoothing: e in [0, 1).
        class_weights: w, (K,), > 0; only ratios matter, because the loss is divided by the sum of n_k w_k.
        logit_adjustment: a, (K,); or one number t for t ln(n_k / N), as in Menon et al. 2021. Added in training only:
            `logits` and `bias` are those of the classifier.
    Cost: about G^3 for G distinct counts: half a second for G = 100, ten for G = 300. Classes of equal size with
        different weights or offsets count as distinct.
    Raises: EmptyClassError for fewer than two classes or a class without samples, RangeError for invalid decays,
        smoothing or weights, ShapeError if weights or offsets do not fit the counts, NonFiniteError for offsets.
    Warns: SearchWarning if rounding keeps the gap above 1e-10 of the loss.
    Source: Zhu et al. 2021 (balanced); Thrampoulidis et al. 2022 (convex form and limit); Hong & Ling 2024 (block
        structure). The reduction to groups, the certificate and the options are derivations of this package.

    >>> from tightframe.theory import cross_entropy_optimum
    >>> optimum = cross_entropy_optimum([25, 25, 25, 25], 5e-4, 5e-4)
    >>> [round(float(gram[0, 0]), 4) for gram in (optimum.classifiers, optimum.means)]
    [22.4398, 0.8976]
    >>> cross_entropy_optimum([20, 20, 20, 4, 4, 4], 0.0295, 0.0295).merged
    [[3, 4, 5]]
    >>> cross_entropy_optimum([20, 20, 20, 4, 4, 4], 0.0295, 0.0295, class_weights=[1, 1, 1, 2, 2, 2]).merged
    []
    """
    sizes, tau = _require(counts, weight_decay_w, weight_decay_h, weight_decay_b)
    groups = ClassGroups.of(sizes, class_weights, logit_adjustment)
    model = _CrossEntropy(groups, tau, weight_decay_b, require_label_smoothing(label_smoothing))
    return _optimum(model, sizes, weight_decay_w, weight_decay_h)


def squared_error_optimum(
    counts: Counts,
    weight_decay_w: float,
    weight_decay_h: float,
    weight_decay_b: float | None = None,
    *,
    class_weights: PerClass | None = None,
) -> UnconstrainedOptimum:
    """The minimum of (1/2N) sum of |W h_i + b - e_y|^2 + lambda_W/2 |W|^2 + lambda_H/2 |H|^2 + lambda_b/2 |b|^2.

    e_y is the one-hot label, D >= K. Without bias the rows are orthogonal for any counts: W H = diag(z) with
    z_k = max(0, 1 - N sqrt(lambda_W lambda_H / n_k)), so z_k = 0 if n_k <= `minority_collapse_threshold`. A bias moves
    the orthogonal frame towards a simplex: see `frame_cosine`. With a bias, classes of equal size at or below the
    threshold merge as under cross-entropy.

    With class weights w the loss is the weighted mean, sum of w_y |W h_i + b - e_y|^2 / (2 sum of w_y). A sign change
    of a class's row and features leaves the loss unchanged, so W H is diagonal without bias: z_k =
    max(0, 1 - M sqrt(lambda_W lambda_H / n_k) / w_k), with M the sum of n_k w_k. With a bias, the columns of the
    residual are scaled by sqrt(w_k).

    Args, cost, raises: as `cross_entropy_optimum`; only unequal counts with a bias need a search. The bias is not
        centred.
    Source: Dang et al. 2023 (any counts, no bias), Tirer & Bruna 2022 (free or no bias); the rest is a derivation of
        this package.

    >>> from tightframe.theory import squared_error_optimum
    >>> optimum = squared_error_optimum([16, 4], 0.01, 0.01)
    >>> [round(float(length), 4) for length in optimum.classifiers.diagonal()]
    [3.8, 1.8]
    """
    sizes, tau = _require(counts, weight_decay_w, weight_decay_h, weight_decay_b)
    model = _SquaredError(ClassGroups.of(sizes, class_weights), tau, weight_decay_b)
    return _optimum(model, sizes, weight_decay_w, weight_decay_h)


def frame_cosine(
    num_classes: int,
    samples_per_class: int,
    weight_decay_w: float,
    weight_decay_h: float,
    weight_decay_b: float | None = None,
) -> float:
    """Cosine between two classifier rows at `squared_error_optimum` for equal counts, about the origin.

    -1/(K-1) with a free bias (simplex ETF), 0 without bias (None, orthogonal frame), in between otherwise; NaN if the
    decay is so strong that all rows are zero. A centred orthogonal frame is a simplex ETF, so only cosines about the
    origin distinguish the two.

    W H has the eigenvalue z_perp = max(0, 1 - K t) on contrasts and z_par = max(0, 1 - K t (1 + lambda_b) / lambda_b)
    along 1, with t = sqrt(n lambda_W lambda_H). The cosine is (z_par - z_perp) / (z_par + (K - 1) z_perp).
    Raises: RangeError unless K >= 2 and n >= 1, and for decays as in `cross_entropy_optimum`.
    Source: Tirer & Bruna 2022 for a free bias and no bias; in between a derivation of this package.

    >>> from tightframe.theory import frame_cosine
    >>> [round(frame_cosine(5, 20, 1e-3, 1e-3, decay), 4) for decay in (0, 0.1, None)]
    [-0.25, -0.0479, 0.0]
    """
    if num_classes < 2 or samples_per_class < 1:
        raise RangeError(
            f"num_classes must be at least 2 and samples_per_class at least 1; got {num_classes} and "
            f"{samples_per_class}."
        )
    tau = _require_decays(weight_decay_w, weight_decay_h, weight_decay_b)
    shrinkage = num_classes * math.sqrt(samples_per_class) * tau
    contrast = max(0.0, 1 - shrinkage)
    if weight_decay_b is None:
        common = contrast
    else:
        common = max(0.0, 1 - shrinkage * (1 + weight_decay_b) / weight_decay_b) if weight_decay_b > 0 else 0.0
    if contrast == 0:
        return math.nan
    return (common - contrast) / (common + (num_classes - 1) * contrast)


# ------------------------------------------------------------- the convex problem


class _CrossEntropy:
    """(1/M) sum of weighted CE as a function of Q, s and b, where M is the sum of n_k w_k.

    Unknowns in addition to Q: the nonzero s_g, and b = sum_g beta_g u_g.

    Entry (h, g) of E is the logit of a class of group h minus that of the own class, for a sample of group g; (g, g) is
    for another class of group g. Probabilities p of own classes are never formed near 1, only 1 - p; the target
    distribution, smoothed by label smoothing, has the same form.

    Increasing s_g from 0 lowers the loss at the rate (m_g - 1) sqrt(n_g) w_g (1 - e) / M, independent of the other
    unknowns, because classes of the group then have equal probabilities; the penalty rises at the rate tau (m_g - 1).
    By convexity s_g = 0, and the classes of the group merge, if and only if sqrt(n_g) w_g (1 - e) <= M tau.
    """

    def __init__(self, groups: ClassGroups, tau: float, decay_b: float | None, smoothing: float = 0.0):
        self.groups, self.tau, self.decay_b = groups, tau, decay_b
        n, m, w, total = groups.sizes, groups.many, groups.weights, groups.total_weight
        self.roots = np.sqrt(n)
        self.spread = smoothing / m.sum()
        others = m[:, None] - np.eye(len(n))  # number of classes per entry of E
        mass = (1 - smoothing) * w + self.spread * (m @ w)  # T: the sum of a sample's targets
        self.targets = self.spread * w[:, None] * others / mass
        self.weights = n * m * mass / total
        self.lifts = groups.offsets[:, None] - groups.offsets
        self.apart = (m > 1) & (n * ((1 - smoothing) * w) ** 2 > (total * tau) ** 2)
        self.units = np.sqrt(np.outer(m, m)) * self.roots  # logits = Q / units
        with np.errstate(divide="ignore"):
            self.log_many = np.log(others)
        self.logit = math.log(max(1 / (total * tau / self.roots[-1] + self.spread) - m.sum() + 1, math.e))
        # units in which s and beta have about the curvature of Q's factors
        self.contrast_unit = np.sqrt(self.logit * self.roots / np.maximum(m - 1, 1))[self.apart]
        self.ones = np.sqrt(m / m.sum())  # along it the bias changes only the penalty
        stiffness = np.minimum(2 * tau * self.roots, n * mass / total) + (decay_b or 0.0)
        self.bias_unit = np.zeros_like(n) if decay_b is None else np.sqrt(tau * self.logit / stiffness)

    def solve(self) -> tuple[Array, Array, Array | None]:
        """Q, s and beta (None for no bias)."""
        groups, G = self.groups, len(self.roots)
        if G == 1:
            share = self.roots[0] * self.tau + self.spread  # probability of each other class
            logit = math.log(1 / share - groups.many[0] + 1) if self.apart[0] else 0.0
            return np.zeros((1, 1)), self.roots * logit, None if self.decay_b is None else np.zeros(1)
        start = self.logit * (np.eye(G) - np.outer(self.ones, self.ones)) * self.roots  # the simplex's logits
        rest = np.concatenate([(self.logit * self.roots)[self.apart] / self.contrast_unit, np.zeros(G)])
        Q, rest = minimise(self, self.tau, start, rest, G - 1)  # columns of logits sum to zero at an optimum
        contrasts, beta = self._parts(rest)
        return Q, contrasts, None if self.decay_b is None else beta

    def at(self, Q: Array, t: Array) -> tuple[float, Array, Array, Curvature]:
        contrasts, beta = self._parts(t)
        losses, off = self._samples(Q, contrasts, beta)
        losses = self._excess(losses, off) if self.spread > 0 else losses
        value = float(self.weights @ losses + self.tau * ((self.groups.many - 1) @ contrasts))
        dQ, ds, db = self._adjoint((off - self.targets) * self.weights)
        ds = ds + self.tau * (self.groups.many - 1)
        decay = self.decay_b or 0.0
        value += decay / 2 * float(beta @ beta)

        def curvature(VQ: Array, v: Array) -> tuple[Array, Array]:
            vs, vb = self._parts(v)
            E = self._differences(VQ, vs, vb)
            HQ, hs, hb = self._adjoint(self.weights * off * (E - (off * E).sum(0)))
            return HQ, self._joined(hs, hb + decay * vb)

        return value, dQ, self._joined(ds, db + decay * beta), curvature

    def certify(self, Q: Array, contrasts: Array, beta: Array | None) -> tuple[float, float]:
        """The objective, and a lower bound on its minimum: the dual at a feasible point.

        With v_k = n_k T_k / M and targets q_k, any r_k in the simplices with |[v_k/sqrt(n_k) (r_k - q_k)]|_2 <= tau
        give the lower bound sum of v_k (entropy of r_k + <r_k - q_k, a>) - |r|^2 / (2 lambda_b) for
        r = sum of v_k (r_k - q_k); a free bias needs r = 0. With the probabilities p, r_k = q_k + c t_k (p_k - q_k):
        c satisfies the norm bound and makes r_k a distribution; t, equal to 1 up to rounding, makes r = 0, which has a
        solution because the columns v_k (p_k - q_k) sum to zero and so are linearly dependent.
        """
        groups, bias = self.groups, np.zeros(len(self.roots)) if beta is None else beta
        losses, off = self._samples(Q, contrasts, bias)
        norm = float(np.linalg.svd(Q, compute_uv=False).sum() + (groups.many - 1) @ contrasts)
        decay = self.decay_b or 0.0
        loss = float(self.weights @ losses + self.tau * norm + decay / 2 * float(bias @ bias))
        excess = off - self.targets
        if self.decay_b == 0:
            flows = excess * self.weights * (1 - np.eye(len(off)))
            rates = flows - np.diag(flows.sum(0))
            excess = excess * (1 - np.linalg.pinv(rates) @ rates.sum(1))
        dQ, ds, db = self._adjoint(excess * self.weights)
        several = groups.many > 1
        largest = float(np.linalg.norm(dQ, 2))
        if several.any():
            largest = max(largest, float(np.abs(ds[several] / (groups.many[several] - 1)).max()))
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where((excess < 0) & (self.targets > 0), self.targets / -excess, np.inf)
            own_room = np.where(excess.sum(0) > 0, (1 - self.targets.sum(0)) / excess.sum(0), np.inf)
        share = min(1.0, self.tau / largest, float(room.min()), float(own_room.min()))
        off = self.targets + share * excess
        lacking = off.sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = np.where(lacking < 1, -(1 - lacking) * np.log1p(-lacking), 0.0)
            entropy -= np.where(off > 0, off * (np.log(off) - self.log_many), 0.0).sum(0)
        bound = float(self.weights @ (entropy + share * (excess * self.lifts).sum(0)))
        if decay > 0:
            bound -= share**2 * float(db @ db) / (2 * decay)
        return loss, bound

    def _samples(self, Q: Array, contrasts: Array, beta: Array) -> tuple[Array, Array]:
        """The loss of a sample per group (G,), and the total probabilities (G, G) of the other classes per group."""
        differences = self._differences(Q, contrasts, beta) + self.lifts
        E = differences + self.log_many
        highest = E.max(0)
        logs = np.logaddexp(0, highest + np.log(np.exp(E - highest).sum(0)))
        return logs - (self.targets * differences).sum(0), np.exp(E - logs)

    def _excess(self, losses: Array, off: Array) -> Array:
        """Losses minus the entropies of the targets q, a constant that would hide small steps in rounding.

        For small x = p/q - 1 it is the sum of q (x - ln(1 + x)), without cancellation.
        """
        excess = off - self.targets
        q = np.vstack([self.targets, 1 - self.targets.sum(0)])
        present = np.where(q > 0, q, 1.0)
        x = np.vstack([excess, -excess.sum(0)]) / present
        logs = np.log(present)
        logs[:-1] -= np.where(self.targets > 0, self.log_many, 0.0)
        close = np.abs(x).max(0) < 0.5
        small = np.where(close, x, 0.0)
        return np.where(close, (q * (small - np.log1p(small))).sum(0), losses + (q * logs).sum(0))

    def _differences(self, Q: Array, contrasts: Array, beta: Array) -> Array:
        logits = Q / self.units + (beta / np.sqrt(self.groups.many))[:, None]
        gap = contrasts / self.roots
        E: Array = logits - np.diag(logits) - gap * (1 - 1 / self.groups.many)
        np.fill_diagonal(E, -gap)
        return E

    def _adjoint(self, gamma: Array) -> tuple[Array, Array, Array]:
        """Gradients in Q, s and beta from the gradient in E."""
        other = gamma * (1 - np.eye(len(gamma)))
        total = other.sum(0)
        logits = other - np.diag(total)
        contrasts = -(np.diag(gamma) + (1 - 1 / self.groups.many) * total) / self.roots
        return logits / self.units, contrasts, logits.sum(1) / np.sqrt(self.groups.many)

    def _parts(self, t: Array) -> tuple[Array, Array]:
        contrasts = np.zeros(len(self.roots))
        contrasts[self.apart] = t[: -len(self.roots)] * self.contrast_unit
        return contrasts, self._centred(t[-len(self.roots) :] * self.bias_unit)

    def _joined(self, ds: Array, db: Array) -> Array:
        return np.concatenate([ds[self.apart] * self.contrast_unit, self._centred(db) * self.bias_unit])

    def _centred(self, beta: Array) -> Array:
        return beta - self.ones * (self.ones @ beta)


class _SquaredError:
    """(1/2N) |R + b c^T|^2, R = (X - D^(1/2)) C, as a function of Q; the best b is -R c / (N (1 + lambda_b)).

    Here C = diag(w)^(1/2), c_k = sqrt(n_k w_k) and N = |c|^2, the number of samples if all weights are 1.
    Contrasts within a group do not depend on the bias: s_g = max(0, sqrt(n_g) - N tau / w_g), with the threshold of
    cross-entropy. The best b gives (1/2N) tr R (I - v v^T / (1 + lambda_b)) R^T, with the unit vector v along c.
    """

    def __init__(self, groups: ClassGroups, tau: float, decay_b: float | None):
        self.groups, self.tau, self.decay_b = groups, tau, decay_b
        self.N = groups.total_weight
        self.roots, self.scale = np.sqrt(groups.sizes), np.sqrt(groups.weights)
        self.common = np.sqrt(groups.many * groups.sizes * groups.weights / self.N)
        self.taken = 0.0 if decay_b is None else 1 / (1 + decay_b)

    def solve(self) -> tuple[Array, Array, Array | None]:
        G = len(self.roots)
        shrunk = np.maximum(0.0, self.roots - self.N * self.tau / self.groups.weights)
        contrasts = np.where(self.groups.many > 1, shrunk, 0.0)
        if self.decay_b is None:
            return np.diag(shrunk), contrasts, None
        if G == 1:
            rest = 1 - self.taken
            Q = np.diag(np.maximum(0.0, self.roots - self.N * self.tau / rest)) if rest > 0 else np.zeros((1, 1))
        else:
            Q, _ = minimise(self, self.tau, np.diag(self.roots), np.zeros(0), G)
        return Q, contrasts, self._beta(Q)

    def at(self, Q: Array, t: Array) -> tuple[float, Array, Array, Curvature]:
        residual = (Q - np.diag(self.roots)) * self.scale
        half = residual - (1 - math.sqrt(1 - self.taken)) * np.outer(residual @ self.common, self.common)
        return (
            float((half**2).sum()) / (2 * self.N),  # as a square: subtracting the bias's part would cancel
            self._without_bias(residual) * self.scale / self.N,
            np.zeros(0),
            lambda direction, _: (self._without_bias(direction * self.scale) * self.scale / self.N, np.zeros(0)),
        )

    def certify(self, Q: Array, contrasts: Array, beta: Array | None) -> tuple[float, float]:
        """The objective at the best bias, and a lower bound on its minimum.

        Any G with |G|_2 <= tau gives the lower bound
        -<G, D^(1/2)> - N/2 |G C^(-1)|^2 - |G sqrt(n)|^2 / (2 lambda_b); a free bias needs G sqrt(n) = 0. At an optimum
        G is R C / N, and -tau U V^T on the singular vectors of X. The latter is used there, because the residual
        cancels for small decays.
        """
        n, w, several = self.groups.sizes, self.groups.weights, self.groups.many - 1
        residual = self._without_bias((Q - np.diag(self.roots)) * self.scale)
        inside = np.where(contrasts > 0, -self.N * self.tau, np.where(several > 0, -w * self.roots, 0.0)) / self.N
        left, values, right = _singular(Q, math.sqrt(n[-1]))
        norm = float(values.sum() + several @ contrasts)
        error = float((residual**2).sum() + several @ (w * (contrasts - self.roots) ** 2)) / (2 * self.N)
        penalty = (self.decay_b or 0.0) / 2 * (0.0 if beta is None else float(beta @ beta))
        loss = error + penalty + self.tau * norm

        rest = residual * self.scale / self.N
        rest = rest - left @ (left.T @ rest)
        rest = rest - (rest @ right) @ right.T
        G = rest * min(1.0, self.tau / max(float(np.linalg.norm(rest, 2)), self.tau)) - self.tau * left @ right.T
        if self.decay_b == 0:
            G = self._without_bias(G / self.scale) * self.scale
        share = min(1.0, self.tau / max(float(np.linalg.norm(G, 2)), float(-inside.min())))
        linear = -float(np.diag(G) @ self.roots + several @ (inside * self.roots))
        square = self.N * float(((G / self.scale) ** 2).sum() + several @ (inside**2 / w)) / 2
        if self.decay_b:
            square += self.N * float(((G / self.scale @ self.common) ** 2).sum()) / (2 * self.decay_b)
        return loss, share * linear - share**2 * square

    def _without_bias(self, residual: Array) -> Array:
        return residual - self.taken * np.outer(residual @ self.common, self.common)

    def _beta(self, Q: Array) -> Array:
        return (np.diag(self.roots) - Q) * self.scale @ self.common * (self.taken / math.sqrt(self.N))


def _optimum(
    model: _CrossEntropy | _SquaredError, counts: Tensor, decay_w: float, decay_h: float
) -> UnconstrainedOptimum:
    groups = model.groups
    Q, contrasts, beta = model.solve()
    bound = model.certify(Q, contrasts, beta)[1]
    left, values, right = _singular(Q, math.sqrt(groups.sizes[-1]))
    Q = (left * values) @ right.T
    loss, other_bound = model.certify(Q, contrasts, beta)
    gap = loss - max(bound, other_bound)  # both are valid; rounding affects one or the other
    if gap > _GAP * loss:
        warnings.warn(
            f"the duality gap of the optimum is {gap:.2g}, a share {gap / loss:.2g} of the loss, because of rounding. "
            "The optimum has fewer exact digits; larger weight decays reduce the gap.",
            SearchWarning,
            stacklevel=3,
        )
    ratio = math.sqrt(decay_h / decay_w)
    lengths = counts.sqrt()
    return UnconstrainedOptimum(
        counts=counts,
        classifiers=groups.expand((left * values) @ left.T, contrasts) * ratio,
        means=groups.expand((right * values) @ right.T, contrasts) / ratio / lengths / lengths[:, None],
        logits=groups.expand(Q, contrasts) / lengths,
        bias=None if beta is None else torch.from_numpy((beta / np.sqrt(groups.many))[groups.group]),
        loss=loss,
        gap=gap,
        rank=len(values) + int(((groups.many - 1) * (contrasts > 0)).sum()),
        merged=_merged(groups, left * np.sqrt(values) / np.sqrt(groups.many)[:, None], contrasts),
    )


def _singular(Q: Array, unit: float) -> tuple[Array, Array, Array]:
    """U, S, V of Q without singular values that are rounding; `unit` is the size of a logit of one."""
    left, values, right = np.linalg.svd(Q)
    positive = values > _NO_LOGIT * unit
    return left[:, positive], values[positive], right[positive].T


def _merged(groups: ClassGroups, rows: Array, contrasts: Array) -> list[list[int]]:
    """Groups of labels with coincident rows; `rows` are the mean rows of the groups."""
    together = [g for g in range(len(rows)) if groups.many[g] == 1 or contrasts[g] == 0]
    longest = math.sqrt(max(float((rows**2).sum(1).max(initial=0.0)), float(contrasts.max())))
    merged: list[list[int]] = []
    while together:
        first = together.pop(0)
        near = [g for g in together if np.linalg.norm(rows[g] - rows[first]) <= _SAME_ROW * longest]
        together = [g for g in together if g not in near]
        labels = sorted(label for g in (first, *near) for label in groups.labels(g))
        if len(labels) > 1:
            merged.append(labels)
    return sorted(merged)


def _require(counts: Counts, decay_w: float, decay_h: float, decay_b: float | None) -> tuple[Tensor, float]:
    return require_counts(counts), _require_decays(decay_w, decay_h, decay_b)


def _require_decays(decay_w: float, decay_h: float, decay_b: float | None) -> float:
    """tau = sqrt(lambda_W lambda_H). Raises: RangeError for invalid decays."""
    require_positive(decay_w, "the weight decay of W")
    require_positive(decay_h, "the weight decay of H")
    if decay_b is not None:
        require_non_negative(decay_b, "the weight decay of the bias")
    return math.sqrt(decay_w * decay_h)
