"""Slow, plain second implementation of the training side: heads, class means, losses, scalars on prototypes.

Nothing here comes from the package. Each function is written as its definition, with loops over samples,
classes, pairs and triplets. Arithmetic is in `np.longdouble`; results leave as float or float64 arrays.
Undefined values (the direction of a zero vector, a ratio to zero) come out as nan or inf.

N samples, K classes, D dims, M tree nodes, T regression targets; z (N, D) embeddings, y (N,) labels in 0 .. K-1,
P (K, D) prototypes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Batches = Sequence[tuple[Any, Any]]  # (z, y) each
Triplets = Sequence[Sequence[int]]  # (i, j, k) each

REAL = np.longdouble


# ---------------------------------------------------------------------------------------------- numbers


def _real(values: Any) -> Array:
    return np.asarray(values, dtype=REAL)


def _labels(values: Any) -> list[int]:
    return [int(value) for value in np.asarray(values)]


def _out(values: Any) -> Array:
    return np.asarray(values, dtype=np.float64)


def _total(values: Sequence[Any]) -> Any:
    total = REAL(0)
    for value in values:
        total = total + value
    return total


@np.errstate(all="ignore")
def _ratio(numerator: Any, denominator: Any) -> Any:
    """a / b; nan or inf where b = 0."""
    return REAL(numerator) / REAL(denominator)


def _mean(values: Sequence[Any]) -> Any:
    """Arithmetic mean; nan for an empty list."""
    return _ratio(_total(values), len(values))


def _dot(a: Array, b: Array) -> Any:
    return _total([left * right for left, right in zip(a, b, strict=True)])


def _norm(a: Array) -> Any:
    return np.sqrt(_dot(a, a))


def _distance(a: Array, b: Array) -> Any:
    return _norm(a - b)


@np.errstate(all="ignore")
def _unit(a: Array) -> Array:
    """a / |a|; nan for the zero vector."""
    return np.asarray(a / _norm(a), dtype=REAL)


def _cosine(a: Array, b: Array) -> Any:
    return _dot(_unit(a), _unit(b))


def _log_sum_exp(scores: Sequence[Any]) -> Any:
    """max + log sum exp(score - max)."""
    highest = max(scores)
    return highest + np.log(_total([np.exp(score - highest) for score in scores]))


def _log_softmax(scores: Sequence[Any]) -> list[Any]:
    normaliser = _log_sum_exp(scores)
    return [score - normaliser for score in scores]


def _softmax(scores: Sequence[Any]) -> list[Any]:
    return [np.exp(value) for value in _log_softmax(scores)]


def _logistic_cross_entropy(x: Any, target: Any) -> Any:
    """-t log sigmoid(x) - (1 - t) log(1 - sigmoid(x))."""
    zero = REAL(0)
    log_yes = x - _log_sum_exp([zero, x])
    log_no = -_log_sum_exp([zero, x])
    return -target * log_yes - (1 - target) * log_no


def _order_target(left: Any, right: Any) -> Any:
    """1, 1/2, 0 as left >, =, < right."""
    if left > right:
        return REAL(1)
    return REAL(1) / 2 if left == right else REAL(0)


def _pairs(P: Any) -> list[tuple[int, int]]:
    return list(combinations(range(len(P)), 2))


# ---------------------------------------------------------------------------------------------- trees


def _path(node: int, parents: Sequence[int]) -> list[int]:
    """The node, its parent, ... up to, and without, the root."""
    path = []
    while parents[node] != -1:
        path.append(node)
        node = int(parents[node])
    return path


def _children(node: int, parents: Sequence[int]) -> list[int]:
    return [child for child in range(len(parents)) if parents[child] == node]


def _leaves_below(node: int, parents: Sequence[int]) -> list[int]:
    """Leaves under the node; a leaf is below itself."""
    children = _children(node, parents)
    if not children:
        return [node]
    return [leaf for child in children for leaf in _leaves_below(child, parents)]


# ---------------------------------------------------------------------------------------------- heads


def _score(kind: str, a: Array, b: Array, delta: Any) -> Any:
    if kind == "dot":
        return _dot(a, b)
    if kind == "cosine":
        return _cosine(a, b)
    if kind == "euclidean":
        return -_distance(a, b)
    if kind == "squared-euclidean":
        return -_dot(a - b, a - b)
    if kind == "pseudo-huber":
        return -delta * (np.sqrt(1 + (_distance(a, b) / delta) ** 2) - 1)
    raise ValueError(f"unknown kind of head {kind!r}")


def head_logits(kind: str, z: Any, P: Any, scale: float = 1.0, delta: float = 1.0) -> Array:
    """scale s(z_n, P_k), (N, K); s: z.P, z^.P^, -|z-P|, -|z-P|^2, -delta (sqrt(1 + (|z-P|/delta)^2) - 1)."""
    rows = []
    for sample in _real(z):
        rows.append([REAL(scale) * _score(kind, sample, prototype, REAL(delta)) for prototype in _real(P)])
    return _out(rows)


def node_log_probabilities(scores: Any, parents: Sequence[int]) -> Array:
    """(N, M): log p(node) = sum over v from the node to below the root of s_v - logsumexp of v's sibling group."""
    rows = []
    for row in _real(scores):
        log_probabilities = []
        for node in range(len(parents)):
            terms = []
            for step in _path(node, parents):
                siblings = _children(int(parents[step]), parents)
                terms.append(row[step] - _log_sum_exp([row[sibling] for sibling in siblings]))
            log_probabilities.append(_total(terms))
        rows.append(log_probabilities)
    return _out(rows)


# ---------------------------------------------------------------------------------------------- class means


def _rows_of(z: Any, y: Any, label: int) -> list[Array]:
    return [row for row, own in zip(_real(z), _labels(y), strict=True) if own == label]


def _vector_total(rows: Sequence[Array], dims: int) -> Array:
    return _real([_total([row[d] for row in rows]) for d in range(dims)])


def _dims(batches: Batches) -> int:
    return int(np.asarray(batches[0][0]).shape[1])


def online_means(batches: Batches, K: int) -> Array:
    """(K, D): mean of all samples seen of each class; nan for a class never seen."""
    dims = _dims(batches)
    means = []
    for label in range(K):
        rows = [row for z, y in batches for row in _rows_of(z, y, label)]
        means.append([_ratio(value, len(rows)) for value in _vector_total(rows, dims)])
    return _out(means)


def decayed_means(batches: Batches, K: int, decay: float) -> Array:
    """(K, D): mean <- decay mean + (1 - decay) batch mean, for classes in the batch; set by the first such batch."""
    dims = _dims(batches)
    means = []
    for label in range(K):
        mean: Array | None = None
        for z, y in batches:
            rows = _rows_of(z, y, label)
            if not rows:
                continue
            batch_mean = _vector_total(rows, dims) / REAL(len(rows))
            mean = batch_mean if mean is None else REAL(decay) * mean + (1 - REAL(decay)) * batch_mean
        means.append(np.full(dims, np.nan, dtype=REAL) if mean is None else mean)
    return _out(means)


def condensed_means(batches: Batches, K: int, every: int) -> Array:
    """(K, D): sum / count, where after each `every`-th batch sum <- mean and count <- 1 for every class seen."""
    dims = _dims(batches)
    means = []
    for label in range(K):
        total = np.zeros(dims, dtype=REAL)
        count = 0
        for number, (z, y) in enumerate(batches, start=1):
            for row in _rows_of(z, y, label):
                total = total + row
                count += 1
            if number % every == 0 and count > 0:
                total = total / REAL(count)
                count = 1
        means.append([_ratio(value, count) for value in total])
    return _out(means)


# ---------------------------------------------------------------------------------------------- losses on embeddings


def dot_regression(z: Any, y: Any, P: Any, feature_length: float = 1.0) -> Array:
    """0.5 |P_y| L (1 - cos(z, P_y))^2."""
    prototypes = _real(P)
    losses = []
    for sample, label in zip(_real(z), _labels(y), strict=True):
        own = prototypes[label]
        losses.append(_norm(own) * REAL(feature_length) * (1 - _cosine(sample, own)) ** 2 / 2)
    return _out(losses)


def balanced_dot_regression(z: Any, y: Any, P: Any) -> Array:
    """0.5 |P_y| B / (C n_y) (1 - cos(z, P_y))^2; B rows, C distinct labels, n_y rows of label y."""
    prototypes = _real(P)
    labels = _labels(y)
    losses = []
    for sample, label in zip(_real(z), labels, strict=True):
        own = prototypes[label]
        balance = REAL(len(labels)) / REAL(len(set(labels)) * labels.count(label))
        losses.append(_norm(own) * balance * (1 - _cosine(sample, own)) ** 2 / 2)
    return _out(losses)


def hyperspherical(z: Any, y: Any, P: Any) -> Array:
    """(1 - cos(z, P_y))^2."""
    prototypes = _real(P)
    losses = []
    for sample, label in zip(_real(z), _labels(y), strict=True):
        losses.append((1 - _cosine(sample, prototypes[label])) ** 2)
    return _out(losses)


def cosine_matching(z: Any, y: Any, P: Any) -> Array:
    """sum_c (cos(z, P_c) - cos(P_y, P_c))^2."""
    prototypes = _real(P)
    losses = []
    for sample, label in zip(_real(z), _labels(y), strict=True):
        own = prototypes[label]
        losses.append(_total([(_cosine(sample, other) - _cosine(own, other)) ** 2 for other in prototypes]))
    return _out(losses)


def _cosine_cross_entropy(vector: Array, label: int, prototypes: Array, scale: float) -> Any:
    """-log softmax_y(scale cos(vector, P_k))."""
    return -_log_softmax([REAL(scale) * _cosine(vector, prototype) for prototype in prototypes])[label]


def prototype_cross_entropy(z: Any, y: Any, P: Any, scale: float) -> Array:
    """-log softmax_y(scale cos(z, P_k))."""
    prototypes = _real(P)
    losses = []
    for sample, label in zip(_real(z), _labels(y), strict=True):
        losses.append(_cosine_cross_entropy(sample, label, prototypes, scale))
    return _out(losses)


def pole_regression(z: Any, values: Any, poles: Any, lower: Any, upper: Any) -> Array:
    """sum_t (r_t - cos(z, poles[2t+1]))^2, r_t = 2 (v_t - l_t) / (u_t - l_t) - 1."""
    ends = _real(poles)
    targets = _real(values)
    count = targets.shape[1]
    low = np.broadcast_to(_real(lower), (count,))
    high = np.broadcast_to(_real(upper), (count,))
    losses = []
    for sample, row in zip(_real(z), targets, strict=True):
        terms = []
        for t in range(count):
            position = 2 * _ratio(row[t] - low[t], high[t] - low[t]) - 1
            terms.append((position - _cosine(sample, ends[2 * t + 1])) ** 2)
        losses.append(_total(terms))
    return _out(losses)


def centre_collapse(z: Any, y: Any, P: Any, scale: float, ignore_index: int = -100) -> Array:
    """-log softmax_c(scale cos(m, P_k)), m the mean of class c's pixels; images in order, then classes ascending."""
    pixels = _real(z)  # (N, D, H, W)
    labels = np.asarray(y)  # (N, H, W)
    images, dims, height, width = pixels.shape
    prototypes = _real(P)
    losses = []
    for n in range(images):
        members: dict[int, list[Array]] = {}
        for i in range(height):
            for j in range(width):
                label = int(labels[n, i, j])
                if label != ignore_index:
                    members.setdefault(label, []).append(pixels[n, :, i, j])
        for label in sorted(members):
            centre = _vector_total(members[label], dims) / REAL(len(members[label]))
            losses.append(_cosine_cross_entropy(centre, label, prototypes, scale))
    return _out(losses)


# ---------------------------------------------------------------------------------------------- losses on logits


def cross_entropy(logits: Any, y: Any) -> Array:
    """-log p_y."""
    return _out([-_log_softmax(row)[label] for row, label in zip(_real(logits), _labels(y), strict=True)])


def soft_label_cross_entropy(logits: Any, y: Any, cost: Any, beta: float, focal: float = 0.0) -> Array:
    """-sum_c q_c (1 - p_c)^focal log p_c, q = softmax_c(-beta cost[y, c] / max cost)."""
    costs = _real(cost)
    highest = max(entry for line in costs for entry in line)
    losses = []
    for row, label in zip(_real(logits), _labels(y), strict=True):
        soft = _softmax([-REAL(beta) * entry / highest for entry in costs[label]])
        log_p = _log_softmax(row)
        terms = []
        for c in range(len(row)):
            others = _total([np.exp(log_p[k]) for k in range(len(row)) if k != c])  # 1 - p_c
            terms.append(-soft[c] * others ** REAL(focal) * log_p[c])
        losses.append(_total(terms))
    return _out(losses)


def hierarchical_cross_entropy(
    logits: Any,
    y: Any,
    parents: Sequence[int],
    alpha: float,
    focal: float = 0.0,
    level_weights: Any = None,
) -> Array:
    """-sum_v w_v (1 - q_v)^focal ln q_v over v from leaf y to below the root.

    q_v = p(v) / p(parent of v), p(v) = sum of softmax over the leaves below v; w_v = level_weights[v] if given,
    else exp(-alpha depth(v)), the root's children at depth 1.
    """
    losses = []
    for row, label in zip(_real(logits), _labels(y), strict=True):
        terms = []
        for node in _path(label, parents):
            inside = _leaves_below(node, parents)
            around = _leaves_below(int(parents[node]), parents)
            whole = _log_sum_exp([row[leaf] for leaf in around])
            log_q = _log_sum_exp([row[leaf] for leaf in inside]) - whole
            rest = _total([np.exp(row[leaf] - whole) for leaf in around if leaf not in inside])  # 1 - q
            if level_weights is None:
                weight = np.exp(-REAL(alpha) * len(_path(node, parents)))
            else:
                weight = _real(level_weights)[node]
            terms.append(-weight * rest ** REAL(focal) * log_q)
        losses.append(_total(terms))
    return _out(losses)


def expected_cost(logits: Any, y: Any, cost: Any) -> Array:
    """sum_k p_k cost[y, k]."""
    costs = _real(cost)
    losses = []
    for row, label in zip(_real(logits), _labels(y), strict=True):
        losses.append(_dot(_real(_softmax(row)), costs[label]))
    return _out(losses)


def squared_earth_mover(logits: Any, y: Any, cost: Any, offset: float) -> Array:
    """sum_k p_k^2 (cost[y, k] - offset)."""
    costs = _real(cost)
    losses = []
    for row, label in zip(_real(logits), _labels(y), strict=True):
        p = _softmax(row)
        losses.append(_total([p[k] ** 2 * (costs[label][k] - REAL(offset)) for k in range(len(p))]))
    return _out(losses)


# ---------------------------------------------------------------------------------------------- scalars on prototypes


def separation(P: Any) -> float:
    """mean_i max_{j != i} cos(P_i, P_j)."""
    prototypes = _real(P)
    nearest = []
    for i, own in enumerate(prototypes):
        nearest.append(max(_cosine(own, other) for j, other in enumerate(prototypes) if j != i))
    return float(_mean(nearest))


def semantic_ranking(P: Any, similarity: Any, triplets: Triplets) -> float:
    """Mean cross-entropy of sigmoid(cos_ij - cos_ik) against 1, 1/2, 0 as similarity_ij >, =, < similarity_ik."""
    prototypes = _real(P)
    wanted = _real(similarity)
    terms = []
    for i, j, k in triplets:
        difference = _cosine(prototypes[i], prototypes[j]) - _cosine(prototypes[i], prototypes[k])
        terms.append(_logistic_cross_entropy(difference, _order_target(wanted[i, j], wanted[i, k])))
    return float(_mean(terms))


def equiangular_hinge(P: Any, alpha: float) -> float:
    """mean_{i<j} max(0, |cos(P_i, P_j)| - alpha)."""
    prototypes = _real(P)
    terms = []
    for i, j in _pairs(prototypes):
        terms.append(np.maximum(REAL(0), abs(_cosine(prototypes[i], prototypes[j])) - REAL(alpha)))
    return float(_mean(terms))


def _scaled_distortion(prototypes: Array, costs: Array, scale: Any) -> Any:
    """mean_{i<j} |s d_ij - D_ij| / D_ij."""
    terms = []
    for i, j in _pairs(prototypes):
        gap = abs(scale * _distance(prototypes[i], prototypes[j]) - costs[i, j])
        terms.append(_ratio(gap, costs[i, j]))
    return _mean(terms)


def distortion(P: Any, cost: Any) -> float:
    """mean_{i<j} |d_ij - D_ij| / D_ij, d_ij = |P_i - P_j|."""
    return float(_scaled_distortion(_real(P), _real(cost), REAL(1)))


def scale_free_distortion(P: Any, cost: Any) -> float:
    """min_s mean_{i<j} |s d_ij - D_ij| / D_ij: convex, piecewise linear in s, so least at some s = D_ij / d_ij."""
    prototypes = _real(P)
    costs = _real(cost)
    best = _scaled_distortion(prototypes, costs, REAL(0))  # the only value where all prototypes coincide
    for i, j in _pairs(prototypes):
        distance = _distance(prototypes[i], prototypes[j])
        if distance > 0:
            best = min(best, _scaled_distortion(prototypes, costs, costs[i, j] / distance))
    return float(best)


def squared_scale_free_distortion(P: Any, cost: Any) -> float:
    """mean_{i<j} (s r_ij - 1)^2, r = d / D, s = sum r / sum r^2."""
    prototypes = _real(P)
    costs = _real(cost)
    ratios = [_ratio(_distance(prototypes[i], prototypes[j]), costs[i, j]) for i, j in _pairs(prototypes)]
    scale = _ratio(_total(ratios), _total([ratio**2 for ratio in ratios]))
    return float(_mean([(scale * ratio - 1) ** 2 for ratio in ratios]))


def prototype_rank(P: Any, cost: Any, triplets: Triplets) -> float:
    """Mean cross-entropy of sigmoid(d_ij - d_ik) against 1, 1/2, 0 as D_ij >, =, < D_ik."""
    prototypes = _real(P)
    costs = _real(cost)
    terms = []
    for i, j, k in triplets:
        difference = _distance(prototypes[i], prototypes[j]) - _distance(prototypes[i], prototypes[k])
        terms.append(_logistic_cross_entropy(difference, _order_target(costs[i, j], costs[i, k])))
    return float(_mean(terms))


# ---------------------------------------------------------------------------------------------- reduction


def reduce(values: Any, labels: Any, reduction: str, weight: Any = None, ignore_index: int = -100) -> Any:
    """sum: sum of w_y value; mean: that over the sum of w_y; none: w_y value. Ignored rows are left out, or 0."""
    weighted = []
    weights = []
    for value, label in zip(_real(values), _labels(labels), strict=True):
        own = REAL(0)
        if label != ignore_index:
            own = REAL(1) if weight is None else _real(weight)[label]
        weights.append(own)
        weighted.append(REAL(0) if label == ignore_index else own * value)
    if reduction == "none":
        return _out(weighted)
    if reduction == "sum":
        return float(_total(weighted))
    if reduction == "mean":
        return float(_ratio(_total(weighted), _total(weights)))
    raise ValueError(f"unknown reduction {reduction!r}")
