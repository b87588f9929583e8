"""Bounds against section E's check values, scipy's polynomials and incomplete beta, and codes that attain them."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from tightframe.codes import bounds, levenshtein, random_vectors, simplex_share
from tightframe.codes import energies as energy_bounds
from tightframe.errors import DimensionError, RangeError
from tightframe.prototypes import code, orthoplex, polygon

SHARP = {
    (240, 8): 1 / 2, (196560, 24): 1 / 2, (56, 7): 1 / 3, (27, 6): 1 / 4, (16, 5): 1 / 5, (12, 3): 5**-0.5,
    (100, 22): 1 / 11, (112, 21): 1 / 9, (162, 21): 1 / 7, (275, 22): 1 / 6, (552, 23): 1 / 5, (891, 22): 1 / 4,
    (4600, 23): 1 / 3, (325, 52): 1 / 16, (756, 105): 1 / 25, (69649, 3856): 1 / 256,
}  # fmt: skip
INVERTED = {
    (100, 16): 0.153298, (100, 10): 0.278446, (120, 8): 0.407883, (10, 3): 0.358258, (1000, 128): 0.036587,
    (10000, 128): 0.082716, (100000, 512): 0.041587,
}  # fmt: skip
GRID_K = [2, 3, 4, 5, 6, 7, 9, 12, 13, 17, 24, 33, 50, 100, 101, 240, 1000, 4600, 10**4, 10**5, 10**6]
GRID_D = [1, 2, 3, 4, 5, 7, 8, 16, 23, 24, 48, 49, 128, 512, 4096]


@pytest.mark.parametrize(("size", "cosine"), SHARP.items())
def test_levenshtein_is_attained(size: tuple[int, int], cosine: float) -> None:
    bound = bounds.levenshtein(*size)
    assert bound is not None
    assert bound.value == pytest.approx(cosine, abs=1e-12)
    assert bounds.cosine_bound(*size).value == pytest.approx(cosine, abs=1e-12)


@pytest.mark.parametrize(("size", "cosine"), INVERTED.items())
def test_levenshtein_inverted(size: tuple[int, int], cosine: float) -> None:
    bound = bounds.levenshtein(*size)
    assert bound is not None
    assert bound.value == pytest.approx(cosine, abs=1e-6)


def levenshtein_size(dim: int, s: float) -> float:
    """L(D, s) from scipy's zeros and polynomials, its interval found by looking."""

    def zero(k: int, a: int, b: int) -> float:
        return -1.0 if k == 0 else float(special.roots_jacobi(k, a + (dim - 3) / 2, b + (dim - 3) / 2)[0].max())

    def polynomial(k: int) -> float:
        return special.eval_gegenbauer(k, (dim - 2) / 2, s) / special.eval_gegenbauer(k, (dim - 2) / 2, 1.0)

    for k in itertools.count(1):
        below, here, above = polynomial(k - 1), polynomial(k), polynomial(k + 1)
        if s <= zero(k, 1, 0):
            rest = (below - here) / ((1 - s) * here)
            return math.comb(k + dim - 3, k - 1) * ((2 * k + dim - 3) / (dim - 1) - rest)
        if s <= zero(k, 1, 1):
            rest = (1 + s) * (here - above) / ((1 - s) * (here + above))
            return math.comb(k + dim - 2, k) * ((2 * k + dim - 1) / (dim - 1) - rest)
    raise AssertionError


@pytest.mark.parametrize("dim", [3, 4, 5, 9, 24, 100])
@pytest.mark.parametrize("num_vectors", [2, 4, 7, 13, 40, 150, 700, 5001])
def test_levenshtein_against_scipy(num_vectors: int, dim: int) -> None:
    bound = bounds.levenshtein(num_vectors, dim)
    assert bound is not None
    assert levenshtein_size(dim, bound.value) == pytest.approx(num_vectors, rel=1e-9)


def test_levenshtein_falls_short_of_the_24_cell_and_the_600_cell() -> None:
    """L(4, 1/2) = 26 and L(4, cos 36 degrees) = 121.67."""
    for size, cosine in ((26, 0.5), (121.6738, math.cos(math.pi / 5))):
        assert levenshtein_size(4, cosine) == pytest.approx(size, abs=1e-4)
        assert (
            bounds.levenshtein(math.floor(size - 1e-6), 4).value
            < cosine
            < bounds.levenshtein(math.ceil(size + 1e-6), 4).value
        )


@pytest.mark.parametrize("num_vectors", [7, 12, 32, 1000, 10**5])
def test_simplex_bound_is_fejes_toths_in_space(num_vectors: int) -> None:
    simplex, triangles = bounds.coxeter_boroczky(num_vectors, 3), bounds.fejes_toth(num_vectors, 3)
    assert simplex is not None and triangles is not None
    assert simplex.value == pytest.approx(triangles.value, abs=1e-12)


def test_fejes_toth() -> None:
    # the great triangle, tetrahedron, octahedron and icosahedron are triangulations by equal triangles
    for size, cosine in ((3, -0.5), (4, -1 / 3), (6, 0), (12, 5**-0.5), (10, 0.3491981862)):
        assert bounds.fejes_toth(size, 3).value == pytest.approx(cosine, abs=1e-9)


def test_simplex_bound_certifies_the_600_cell() -> None:
    best = bounds.cosine_bound(120, 4)
    assert best.name == "Coxeter–Böröczky"
    assert best.value == pytest.approx(math.cos(math.pi / 5), abs=1e-12)


@pytest.mark.parametrize(("dim", "kissing"), [(3, 13), (4, 26), (5, 48), (6, 85), (7, 146), (8, 244)])
def test_simplex_bound_on_kissing_numbers(dim: int, kissing: int) -> None:
    """Coxeter's 1963 table."""
    assert bounds.coxeter_boroczky(kissing, dim).value < 0.5 < bounds.coxeter_boroczky(kissing + 1, dim).value


@pytest.mark.parametrize("m", [2, 3, 5, 7])
@pytest.mark.parametrize("edge", [1.2, 1.4, math.pi / 2])
def test_simplex_share_is_a_normal_orthant_probability(m: int, edge: float) -> None:
    """A simplex is where m + 1 normals, correlated by minus the cosine of the dihedral angle, are all positive."""
    cosine = math.cos(edge) / (1 + (m - 1) * math.cos(edge))
    covariance = (1 + cosine) * np.eye(m + 1) - cosine
    share = stats.multivariate_normal.cdf(
        np.zeros(m + 1), np.zeros(m + 1), covariance, abseps=1e-9, releps=1e-5, maxpts=400_000, rng=0
    )
    assert math.exp(simplex_share.simplex_share(m)(edge)) == pytest.approx(share, rel=2e-3)
    if edge == math.pi / 2:
        assert simplex_share.simplex_share(m)(edge) == pytest.approx(-(m + 1) * math.log(2), abs=1e-12)


@pytest.mark.parametrize("dim", [3, 4, 11, 24, 48])
def test_small_simplices_are_flat(dim: int) -> None:
    """Of volume sqrt(m+1)/(m! 2^(m/2)) edge^m, over the sphere's 2 pi^((m+1)/2)/Gamma((m+1)/2)."""
    m, edge = dim - 1, 1e-5
    flat = 0.5 * math.log(m + 1) - math.lgamma(m + 1) - m / 2 * math.log(2) + m * math.log(edge)
    sphere = math.log(2) + (m + 1) / 2 * math.log(math.pi) - math.lgamma((m + 1) / 2)
    assert simplex_share.simplex_share(m)(edge) == pytest.approx(flat - sphere, abs=1e-7)


@pytest.mark.parametrize("size", [3, 5, 17, 1000])
def test_circle(size: int) -> None:
    assert bounds.cosine_bound(size, 2).value == pytest.approx(math.cos(2 * math.pi / size), abs=1e-15)
    assert bounds.coherence_bound(size, 2).value == pytest.approx(math.cos(math.pi / size), abs=1e-15)


def test_line() -> None:
    assert bounds.cosine_bound(2, 1).value == -1
    assert bounds.cosine_bound(3, 1).value == 1
    assert bounds.coherence_bound(2, 1).value == 1


def test_rankin() -> None:
    assert bounds.cosine_bound(10, 9) == bounds.rankin(10, 9)
    assert bounds.rankin(10, 9).value == -1 / 9
    assert bounds.cosine_bound(11, 9).value == 0 == bounds.cosine_bound(18, 9).value
    assert bounds.cosine_bound(19, 9).value > 0


@pytest.mark.parametrize(
    ("lines", "dim", "name", "coherence"),
    [
        (100, 16, "Welch", 0.2302831),
        (28, 7, "Welch", 1 / 3),
        (276, 23, "Welch", 1 / 5),
        (6, 3, "Welch", 5**-0.5),
        (144, 16, "Levenshtein line", 1 / 4),
        (2112, 64, "Levenshtein line", 1 / 8),
        (63, 7, "Levenshtein line", 1 / 2),
        (120, 8, "Levenshtein line", 1 / 2),
        (60, 4, "Coxeter–Böröczky antipodal", math.cos(math.pi / 5)),
        (98280, 24, "Levenshtein antipodal", 1 / 2),
        (16, 16, "orthonormal", 0),
    ],
)
def test_lines(lines: int, dim: int, name: str, coherence: float) -> None:
    bound = bounds.coherence_bound(lines, dim)
    assert bound.name == name
    assert bound.value == pytest.approx(coherence, abs=1e-7)


def test_levenshtein_for_lines_begins_beyond_equiangular_sets() -> None:
    assert bounds.levenshtein_lines(28, 7) is None
    assert bounds.levenshtein_lines(29, 7) is not None


def test_not_applicable_is_none() -> None:
    assert bounds.polygon(5, 3) is None
    assert bounds.levenshtein(5, 2) is None
    assert bounds.fejes_toth(5, 4) is None
    assert bounds.coxeter_boroczky(8, 4) is None
    assert bounds.coxeter_boroczky(1000, 49) is None


@pytest.mark.parametrize("bound", [bounds.cosine_bound, bounds.coherence_bound])
def test_monotone(bound) -> None:
    values = np.array([[bound(size, dim).value for size in GRID_K] for dim in GRID_D])
    assert (np.diff(values, axis=1) >= -1e-14).all()  # more vectors are no further apart
    assert (np.diff(values, axis=0) <= 1e-14).all()  # more room doesn't bring them closer
    assert (values <= 1).all() and (values >= -1).all()


def test_random_reference() -> None:
    for size, cosine in {(100, 16): 0.7723, (1000, 128): 0.3992, (100000, 512): 0.2740}.items():
        assert random_vectors.random_cosine(*size) == pytest.approx(cosine, abs=5e-5)


@pytest.mark.parametrize(("size", "dim"), [(2, 5), (10, 2), (50, 3), (1000, 16), (10**6, 300), (10**6, 4096)])
def test_random_reference_against_scipy(size: int, dim: int) -> None:
    pairs = math.comb(size, 2)
    cosine = random_vectors.random_cosine(size, dim)
    cap = 0.5 * special.betainc((dim - 1) / 2, 0.5, 1 - cosine**2)
    assert pairs * math.log1p(-cap) == pytest.approx(-math.log(2), rel=1e-8)


def test_random_reference_is_a_median() -> None:
    draws = np.random.default_rng(0).standard_normal((4000, 12, 4))
    draws /= np.linalg.norm(draws, axis=2, keepdims=True)
    largest = (draws @ draws.transpose(0, 2, 1) - 3 * np.eye(12)).max((1, 2))
    assert (largest < random_vectors.random_cosine(12, 4)).mean() == pytest.approx(0.5, abs=0.03)  # 3.8 standard errors


def test_random_reference_on_a_line() -> None:
    assert random_vectors.random_cosine(3, 1) == 1


@pytest.mark.parametrize(
    "bound",
    [
        *(bounds.cosine_bound, bounds.coherence_bound, random_vectors.random_cosine, bounds.welch),
        *(energy_bounds.log_kernel_bound, energy_bounds.distance_bound),
        *(energy_bounds.equiangularity_floor, energy_bounds.maximal_angle_floor),
    ],
)
def test_impossible_sizes(bound) -> None:
    for size, message in (
        ((1, 3), "num_vectors must be at least 2; got 1"),
        ((0, 3), "num_vectors must be at least 2; got 0"),
        ((5, 0), "dim must be at least 1; got 0"),
        ((5.0, 3), r"num_vectors must be an integer; got 5\.0"),
        ((5, "3"), "dim must be an integer; got '3'"),
    ):
        with pytest.raises(DimensionError, match=message):
            bound(*size)


# ---------------------------------------------------------------------- mean energies

SHARP_CODES = ["icosahedron", "e8", "gosset", "schlafli", "hemicube", "higman-sims", "mclaughlin", "leech-552"]
CURVE_K = [*range(2, 40), 50, 99, 100, 101, 240, 999, 1000, 4600, 10_000, 50_000]


def pair_cosines(vectors: torch.Tensor) -> torch.Tensor:
    units = vectors / vectors.norm(dim=1, keepdim=True)
    i, j = torch.triu_indices(len(units), len(units), 1)
    return (units @ units.mT)[i, j]


def mean_log_kernel(vectors: torch.Tensor) -> torch.Tensor:
    return (-(2 - 2 * pair_cosines(vectors)).log() / 2).mean()


def mean_riesz(vectors: torch.Tensor, exponent: float = 1.0) -> torch.Tensor:
    return (2 - 2 * pair_cosines(vectors)).pow(-exponent / 2).mean()


def mean_distance(vectors: torch.Tensor) -> torch.Tensor:
    return (2 - 2 * pair_cosines(vectors)).sqrt().mean()


def mean_angle_deviation(vectors: torch.Tensor) -> torch.Tensor:
    return (pair_cosines(vectors) + 1 / (len(vectors) - 1)).abs().mean()


def minimise(loss, num_vectors: int, dim: int, seed: int = 0, rounds: int = 60) -> torch.Tensor:
    """K vectors in R^D from a random start, after a short descent."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(num_vectors, dim, generator=generator, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.LBFGS([vectors], max_iter=rounds, line_search_fn="strong_wolfe", tolerance_change=1e-12)

    def closure() -> torch.Tensor:
        descent.zero_grad()
        value = loss(vectors)
        value.backward()
        return value

    descent.step(closure)
    return vectors.detach()


def energies(vectors: torch.Tensor) -> list[tuple[float, float]]:
    """(value, lower bound) of every kernel; distances with their sign changed."""
    size = tuple(vectors.shape)
    return [
        (float(mean_log_kernel(vectors)), energy_bounds.log_kernel_bound(*size)),
        (float(mean_riesz(vectors)), energy_bounds.riesz_bound(*size)),
        (float(mean_riesz(vectors, 4.0)), energy_bounds.riesz_bound(*size, 4.0)),
        (-float(mean_distance(vectors)), -energy_bounds.distance_bound(*size)),
        (float(pair_cosines(vectors).exp().mean()), energy_bounds.energy_bound(*size, np.exp)),
    ]


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 8, 16, 24, 99, 512, 4096])
def test_quadrature_is_exact_to_levenshteins_degree(dim: int) -> None:
    """Every Gegenbauer polynomial of degree >= 1 has the mean 0 over the sphere."""
    for size in CURVE_K:
        nodes, weights = levenshtein.levenshtein_quadrature(size, dim)
        assert (weights >= 0).all() and weights.sum() == pytest.approx(1, abs=1e-12)
        assert (np.diff(nodes) > 0).all() and nodes[0] >= -1
        if dim < 3:
            continue
        assert nodes[-1] == pytest.approx(bounds.levenshtein(size, dim).value, abs=1e-11)
        degree = 2 * len(nodes) - (2 if nodes[0] == -1 and size > 2 else 1)
        below, here = np.ones_like(nodes), nodes
        for j in range(1, degree + 1):
            assert 1 / size + (1 - 1 / size) * weights @ here == pytest.approx(0, abs=1e-12)
            below, here = here, ((2 * j + dim - 2) * nodes * here - j * below) / (j + dim - 2)


@pytest.mark.parametrize(("num_vectors", "degree"), [(12, 4), (13, 5), (16, 5), (17, 6), (20, 6), (21, 7)])
def test_quadrature_changes_its_degree_at_the_sizes_of_tight_designs(num_vectors: int, degree: int) -> None:
    """A tight m-design in space has (m+1)(m+3)/4 points for odd m and (m+2)^2/4 for even m."""
    nodes, _ = levenshtein.levenshtein_quadrature(num_vectors, 3)
    assert 2 * len(nodes) - (2 if nodes[0] == -1 else 1) == degree


@pytest.mark.parametrize("size", [3, 5, 6, 11, 12, 40])
def test_quadrature_of_the_circle_is_the_polygons(size: int) -> None:
    nodes, weights = levenshtein.levenshtein_quadrature(size, 2)
    for j in range(1, size):
        assert 1 / size + (1 - 1 / size) * weights @ np.cos(j * np.arccos(nodes)) == pytest.approx(0, abs=1e-12)


def test_quadrature_cannot_be_changed() -> None:
    nodes, weights = levenshtein.levenshtein_quadrature(50, 5)
    for values in (nodes, weights):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 0


@pytest.mark.parametrize(("num_vectors", "dim"), [(2, 1), (2, 3), (3, 2), (4, 3), (10, 9), (10, 500), (1000, 4096)])
def test_energy_of_the_simplex(num_vectors: int, dim: int) -> None:
    edge = 2 * num_vectors / (num_vectors - 1)
    assert energy_bounds.log_kernel_bound(num_vectors, dim) == pytest.approx(-math.log(edge) / 2, abs=1e-15)
    assert energy_bounds.riesz_bound(num_vectors, dim, 3.0) == pytest.approx(edge**-1.5, abs=1e-15)
    assert energy_bounds.distance_bound(num_vectors, dim) == pytest.approx(math.sqrt(edge), abs=1e-15)


@pytest.mark.parametrize("name", SHARP_CODES)
def test_sharp_codes_attain_the_energy_bound(name: str) -> None:
    for value, bound in energies(code(name).vectors):
        assert value == pytest.approx(bound, abs=1e-11)


@pytest.mark.parametrize("dim", [2, 3, 7])
def test_orthoplexes_and_polygons_attain_the_energy_bound(dim: int) -> None:
    shapes = [orthoplex(2 * dim, dim)] if dim > 2 else [polygon(size, 2) for size in (4, 5, 8, 31)]
    for shape in shapes:
        for value, bound in energies(shape.vectors):
            assert value == pytest.approx(bound, abs=1e-12)


@pytest.mark.parametrize("name", ["petersen", "24-cell", "600-cell", "gewirtz", "hoffman-singleton"])
def test_other_codes_stay_above_the_energy_bound(name: str) -> None:
    for value, bound in energies(code(name).vectors)[:4]:
        assert value > bound + 1e-7


@pytest.mark.parametrize(("num_vectors", "dim"), [(8, 2), (5, 3), (8, 3), (20, 3), (13, 4), (20, 16), (60, 16)])
def test_no_descent_beats_the_energy_bound(num_vectors: int, dim: int) -> None:
    for loss in (mean_log_kernel, mean_riesz, lambda v: -mean_distance(v)):
        vectors = minimise(loss, num_vectors, dim)
        for value, bound in energies(vectors):
            assert value >= bound - 1e-10
    log_value, log_bound = energies(minimise(mean_log_kernel, num_vectors, dim))[0]
    assert log_value == pytest.approx(log_bound, abs=0.02)  # not a bound that anything meets


def test_energy_bound_falls_with_the_dimension_and_rises_with_the_number() -> None:
    sizes, dims = [2, 3, 4, 5, 9, 17, 50, 100, 1000, 10_000], [2, 3, 4, 8, 16, 100, 1000]
    upper = energy_bounds.distance_bound
    for bound in (energy_bounds.log_kernel_bound, energy_bounds.riesz_bound, lambda K, D: -upper(K, D)):
        values = np.array([[bound(size, dim) for size in sizes] for dim in dims])
        assert (np.diff(values, axis=1) > 0).all()
        assert (np.diff(values, axis=0) <= 1e-13).all()


def test_energy_on_a_line() -> None:
    """Of five vectors at ±1 two and three coincide at best: 6 of 10 pairs are 2 apart."""
    assert energy_bounds.distance_bound(5, 1) == pytest.approx(1.2, abs=1e-15)
    assert energy_bounds.log_kernel_bound(5, 1) == math.inf == energy_bounds.riesz_bound(3, 1)
    assert energy_bounds.energy_bound(5, 1, np.exp) == pytest.approx(0.6 / math.e + 0.4 * math.e, abs=1e-14)


@pytest.mark.parametrize("exponent", [0.0, -1.0, math.inf, math.nan])
def test_riesz_exponents(exponent: float) -> None:
    with pytest.raises(RangeError, match=r"finite and > 0; got"):
        energy_bounds.riesz_bound(10, 3, exponent)


# ---------------------------------------------------------------------- how equal angles can be


def centred_spread(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Standard deviation of the cosines of the centred vectors, and the coefficient of variation of their lengths."""
    centred = vectors - vectors.mean(0)
    lengths = centred.norm(dim=1)
    return pair_cosines(centred).std(), lengths.std() / lengths.mean()


@pytest.mark.parametrize("name", ["icosahedron", "24-cell", "600-cell", "petersen", "schlafli", "hoffman-singleton"])
def test_spherical_designs_attain_the_equiangularity_floor(name: str) -> None:
    vectors = code(name).vectors
    cosines = pair_cosines(vectors)
    assert energy_bounds.equiangularity_floor(*vectors.shape) == pytest.approx(float(cosines.std()), abs=1e-11)
    assert energy_bounds.equiangularity_floor(*vectors.shape, ddof=0) == pytest.approx(
        float(cosines.std(correction=0)), abs=1e-11
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("num_vectors", "dim"), [(3, 1), (6, 1), (5, 3), (8, 2), (12, 4), (20, 16), (100, 16)])
def test_no_lengths_beat_the_equiangularity_floor(num_vectors: int, dim: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for skew in (0.0, 1.0, 10.0, 100.0):
        vectors = torch.randn(num_vectors, dim, generator=generator, dtype=torch.float64)
        vectors[0] *= 1 + skew
        vectors[1:, 0] += skew
        deviation, equinorm = centred_spread(vectors)
        floor = energy_bounds.equiangularity_floor(num_vectors, dim, equinorm=float(equinorm))
        assert float(deviation) >= floor - 1e-10


def test_unequal_lengths_lower_the_equiangularity_floor() -> None:
    """One long vector against many short ones of nearly one direction is below the floor of equal lengths."""
    vectors = torch.eye(1, 4, dtype=torch.float64).repeat(50, 1)
    vectors[0] *= -49
    deviation, equinorm = (float(value) for value in centred_spread(vectors))
    assert deviation == pytest.approx(math.sqrt(8 / 50 * 48 / 50 * 1225 / 1224), abs=1e-12)
    own = energy_bounds.equiangularity_floor(50, 4, equinorm=equinorm)
    assert 0 < own < deviation < energy_bounds.equiangularity_floor(50, 4) - 0.09


def test_equiangularity_floor_of_unequal_lengths_is_nearly_attained() -> None:
    size = 20, 4

    def loss(vectors: torch.Tensor) -> torch.Tensor:
        deviation, equinorm = centred_spread(vectors)
        return deviation.square() + 1e3 * (equinorm - 1.5).clamp(min=0).square()

    def skewed(vectors: torch.Tensor) -> torch.Tensor:
        push = torch.zeros_like(vectors)
        push[:, 0] = 3.0
        push[0, 0] = -3.0 * size[0]
        return vectors + push

    vectors = skewed(minimise(lambda v: loss(skewed(v)), *size, rounds=300))
    deviation, equinorm = (float(value) for value in centred_spread(vectors))
    own = energy_bounds.equiangularity_floor(*size, equinorm=equinorm)
    assert own - 1e-10 <= deviation < own + 0.01
    assert own < energy_bounds.equiangularity_floor(*size) - 0.02


def test_equiangularity_floor_of_small_differences_in_length_is_that_of_equal_lengths() -> None:
    equal = energy_bounds.equiangularity_floor(100, 16)
    assert energy_bounds.equiangularity_floor(100, 16, equinorm=0.67) == equal
    assert energy_bounds.equiangularity_floor(100, 16, equinorm=0.69) < equal
    falling = [energy_bounds.equiangularity_floor(100, 16, equinorm=value) for value in np.linspace(0, 10, 101)]
    assert (np.diff(falling) <= 0).all() and falling[-1] >= 0


def variance_floor_by_search(num_vectors: int, dim: int, squared: float) -> float:
    """The least V(x) over a fine grid of x and of the largest eigenvalue l."""
    K, D = num_vectors, dim
    ratio = 1 + 1 / squared
    x = np.linspace(0, K / ratio, 200_001)
    largest = np.maximum(K / D, ratio * x)
    return float(((largest**2 + (K - largest) ** 2 / (D - 1) - K) / (K * (K - 1)) - (x - 1) ** 2 / (K - 1) ** 2).min())


@pytest.mark.parametrize(("num_vectors", "dim"), [(5, 3), (8, 2), (10, 5), (20, 16), (100, 16), (1000, 3)])
@pytest.mark.parametrize("equinorm", [0.05, 0.7, 1.5, 4.0])
def test_equiangularity_floor_against_a_grid(num_vectors: int, dim: int, equinorm: float) -> None:
    floor = energy_bounds.equiangularity_floor(num_vectors, dim, equinorm=equinorm, ddof=0)
    squared = equinorm**2 * (num_vectors - 1) / num_vectors
    assert floor**2 == pytest.approx(variance_floor_by_search(num_vectors, dim, squared), abs=1e-8)


def test_angle_floors_are_zero_where_a_simplex_fits() -> None:
    for size in ((2, 1), (4, 3), (10, 500)):
        assert energy_bounds.equiangularity_floor(*size) == 0 == energy_bounds.maximal_angle_floor(*size)
        assert energy_bounds.equiangularity_floor(*size, equinorm=3.0) == 0


@pytest.mark.parametrize(("num_vectors", "dim"), [(5, 3), (8, 2), (12, 3), (20, 4), (20, 16)])
def test_no_descent_beats_the_maximal_angle_floor(num_vectors: int, dim: int) -> None:
    def smooth(vectors: torch.Tensor) -> torch.Tensor:
        return ((pair_cosines(vectors) + 1 / (num_vectors - 1)).square() + 1e-6).sqrt().mean()

    floor = energy_bounds.maximal_angle_floor(num_vectors, dim)
    for seed in range(3):
        assert float(mean_angle_deviation(minimise(smooth, num_vectors, dim, seed))) >= floor - 1e-12


def test_maximal_angle_floor_is_attained_on_a_line_and_approached_by_copies_of_the_orthoplex() -> None:
    line = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(4)[:, None]
    assert float(mean_angle_deviation(line)) == pytest.approx(energy_bounds.maximal_angle_floor(8, 1), abs=1e-15)
    dim, copies = 5, 6
    size = 2 * dim * copies
    value = float(mean_angle_deviation(orthoplex(2 * dim, dim).vectors.repeat(copies, 1)))
    floor = energy_bounds.maximal_angle_floor(size, dim)
    assert value / floor == pytest.approx((size - 2) / (size - 1 - dim), abs=1e-12)


def test_rank_floor_of_the_simplex() -> None:
    """Check values of section A2."""
    assert energy_bounds.rank_floor(np.ones(99), 64) == pytest.approx(0.6261, abs=5e-5)
    assert energy_bounds.rank_floor(np.ones(29232), 1024) == pytest.approx(1.2750, abs=5e-5)
    assert energy_bounds.rank_floor(np.ones(9), 9) == 0 == energy_bounds.rank_floor([1.0, 2.0], 500)


@pytest.mark.parametrize("dim", [1, 3, 9])
def test_rank_floor_is_attained_by_the_truncated_target_and_by_nothing_less(dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(10, 10, generator=generator, dtype=torch.float64)
    target = root @ root.mT
    values, basis = torch.linalg.eigh(target)

    def distance(gram: torch.Tensor) -> float:
        return float((gram / gram.norm() - target / target.norm()).norm())

    floor = energy_bounds.rank_floor(values.numpy(), dim)
    top = basis[:, -dim:]
    assert distance(top @ torch.diag(values[-dim:]) @ top.mT) == pytest.approx(floor, abs=1e-12)
    for _ in range(20):
        factor = top @ torch.diag(values[-dim:].sqrt()) + 0.1 * torch.randn(10, dim, generator=generator).double()
        assert distance(factor @ factor.mT) > floor


def test_rank_floor_keeps_what_is_small_and_passes_over_negative_eigenvalues() -> None:
    assert energy_bounds.rank_floor([1.0, 1e-9], 1) == pytest.approx(1e-9, rel=1e-12)
    assert energy_bounds.rank_floor([3.0, -4.0], 2) == pytest.approx(math.sqrt(2 - 2 * 0.6), abs=1e-15)
    assert energy_bounds.rank_floor([3e200, 4e200], 1) == pytest.approx(math.sqrt(2 - 2 * 0.8), abs=1e-15)


def test_bad_arguments_of_floors() -> None:
    with pytest.raises(RangeError, match=r"equinorm must be finite and >= 0; got -1"):
        energy_bounds.equiangularity_floor(10, 3, equinorm=-1.0)
    with pytest.raises(RangeError, match=r"ddof must be 0 or 1; got 2"):
        energy_bounds.equiangularity_floor(10, 3, ddof=2)
    with pytest.raises(DimensionError, match=r"dim must be at least 1; got 0"):
        energy_bounds.rank_floor([1.0], 0)
    for values in ([], [0.0, -1.0], [1.0, math.nan]):
        with pytest.raises(RangeError, match=r"finite, and at least one must be positive"):
            energy_bounds.rank_floor(values, 1)
