"""Certificates of parts, rotations, perturbations and paddings of codes say nothing false."""

import math
import re

import pytest
import torch
from torch import Tensor

from tightframe.codes import Certificate, Code, best_listed, certify
from tightframe.codes.bounds import cosine_bound
from tightframe.codes.table import _up_to
from tightframe.prototypes import best, code, simplex

BUILT = [row for row in _up_to(24) if row.build is not None and row.K <= 300]


def changed(generator: torch.Generator) -> Tensor:
    """A random code after up to four changes: fewer vectors, zeros appended, a rotation, noise, a repeated vector."""

    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    vectors = BUILT[below(len(BUILT))].vectors()
    if below(2):
        kept = max(2, len(vectors) - (below(4) if below(2) else below(len(vectors))))
        vectors = vectors[torch.randperm(len(vectors), generator=generator)[:kept]]
    if below(3) == 0:
        vectors = torch.nn.functional.pad(vectors, (0, 1 + below(3)))
    if below(2):
        vectors = vectors @ torch.linalg.qr(noise(vectors.shape[1], vectors.shape[1])).Q
    if below(2):
        vectors = vectors + 10.0 ** -(2 + 12 * float(torch.rand((), generator=generator))) * noise(*vectors.shape)
    if below(8) == 0:
        vectors = torch.cat([vectors, vectors[below(len(vectors))][None] * (1 + below(2))])
    return vectors


def equal_code(certificate: Certificate) -> Code | None:
    """The listed code of exactly this size."""
    code = best_listed(certificate.num_vectors, certificate.dim)
    return code if code is not None and (certificate.num_vectors, certificate.dim) == (code.K, code.D) else None


def check(vectors: Tensor, certificate: Certificate) -> str:
    """Hold every statement against the vectors, the tables and the bounds; returns the first word of the verdict."""
    K, D = vectors.shape
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    cosines = (unit @ unit.T).fill_diagonal_(-math.inf)
    largest = float(cosines.max())
    assert certificate.max_cosine == pytest.approx(min(largest, 1), abs=1e-13)
    bound, listed, own = cosine_bound(K, D).value, best_listed(K, D), equal_code(certificate)
    tolerance = 1.001e-9 * min(1, 1 - largest) + 2e-15
    smallest = min([bound, *([own.cosine] if own is not None and own.proof else [])]) - tolerance
    assert largest >= smallest, "no code beats a proof"
    reached = largest <= bound + tolerance or (own is not None and own.proof and largest <= own.cosine + tolerance)
    assert (certificate.optimal is True) == bool(reached)
    if certificate.optimal is False:
        assert listed is not None and listed.cosine < largest
    word, reason = certificate.word, certificate.reason
    for row, other in re.findall(r"Rows (\d+) and (\d+) (?:nearly )?coincide", reason):
        assert float(cosines[int(row), int(other)]) >= math.cos(0.01 * math.acos(bound)) - 1e-12
        assert " coincide" in reason.replace("nearly coincide", "") or float(cosines[int(row), int(other)]) < 1 - 1e-15
    if "coincide" not in reason and not certificate.optimal:
        assert largest < math.cos(0.01 * math.acos(bound)) + 1e-12, "close vectors are named"
    if "smaller than that of" in reason:
        assert listed is not None and largest < listed.cosine
    if "equals that of" in reason:
        assert listed is not None and abs(largest - listed.cosine) <= tolerance
    if "best in the built-in table" in reason:
        assert listed is not None and largest <= listed.cosine + tolerance
        assert ("no row for" in reason) == (own is None)
    if "no rows for D" in reason or "no row for D" in reason:
        assert all(code.D != D for code in _up_to(D))
    if " TO " in word:
        within = float(word.split(" TO ")[1])
        assert own is not None and word.startswith("OPTIMAL" if own.proof else "BEST IN THE TABLE")
        assert largest - own.cosine <= within <= 2e-3 * (1 - own.cosine)
        if "every cosine" in reason:
            assert own.inner_products is not None
            apart = (cosines[..., None] - torch.tensor(own.inner_products, dtype=torch.float64)).abs().amin(-1)
            assert float(apart.fill_diagonal_(0).max()) <= within
    if word == "COMMON DIRECTION":
        mean = float(cosines[~torch.eye(K, dtype=torch.bool)].mean())
        assert mean == pytest.approx(certificate.mean_cosine, abs=1e-12) and mean > 0.199
        assert certificate.centred is None or certificate.centred.max_cosine <= 1
    return word.split(" TO ")[0]


@pytest.mark.parametrize(
    ("seed", "cases"), [pytest.param(20, 200, id="200"), pytest.param(21, 1000, id="1000", marks=pytest.mark.slow)]
)
def test_no_statement_is_false(seed: int, cases: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    words = set()
    for _ in range(cases):
        vectors = changed(generator)
        words.add(check(vectors, certify(vectors, one_vs_rest=False)))
    assert words >= {"OPTIMAL", "NOT OPTIMAL", "VECTORS COINCIDE", "BEST IN THE TABLE"}


def test_a_part_of_a_code_is_no_record() -> None:
    """20 vectors of the 24-cell, and nine of Petersen's, are not the best known: the table has better ones."""
    for vectors in (code("24-cell").vectors[:20], code("petersen").vectors[:9]):
        certificate = certify(vectors)
        assert certificate.optimal is False and certificate.word == "NOT OPTIMAL"
        assert certificate.best_listed is not None and len(vectors) == certificate.best_listed.K


def test_equal_vectors_are_named_first() -> None:
    vectors = torch.randn(30, 12, generator=torch.Generator().manual_seed(0))
    vectors[4:13] = vectors[3]
    certificate = certify(vectors)
    assert certificate.word == "VECTORS COINCIDE"
    assert certificate.reason == "Rows 3 and 4 coincide; 10 of 30 rows have such a partner. Remove or separate them."
    vectors[4:13] += 1e-4 * torch.randn(9, 12, generator=torch.Generator().manual_seed(1))
    assert certify(vectors).word == "VECTORS NEARLY COINCIDE"


def test_a_learnt_etf_is_one_to_a_tolerance() -> None:
    vectors = simplex(10, 64).vectors
    vectors = vectors + 7e-6 * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
    certificate = certify(vectors)
    assert certificate.optimal is None and certificate.verdict.tone == "good"
    assert certificate.gram_residual is not None
    assert 1e-5 < certificate.gram_residual <= float(certificate.word.removeprefix("OPTIMAL TO ")) < 1e-4
    assert "simplex ETF to" in certificate.reason


def test_a_common_direction_is_named_and_taken_off() -> None:
    """Text embeddings have cosines all around .65."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(20, 96, generator=generator, dtype=torch.float64)
    certificate = certify(vectors + 13.5 * torch.nn.functional.normalize(vectors.new_ones(96), dim=0))
    assert certificate.word == "COMMON DIRECTION" and "mean cosine is 0.6" in certificate.reason
    expected = certify(vectors - vectors.mean(0), one_vs_rest=False)
    assert certificate.centred is not None
    assert certificate.centred.max_cosine == pytest.approx(expected.max_cosine, abs=1e-12)
    text = certificate.document().to("terminal", width=120)
    assert "Centred rows" in text and f"{expected.max_cosine:.9f}" in text


@pytest.mark.parametrize(("K", "D"), [(100, 17), (20, 5), (70, 13), (300, 9)])
def test_more_dimensions_are_never_worse(K: int, D: int) -> None:
    here, below = (best(K, dim, rounds=0).certificate.max_cosine for dim in (D, D - 1))
    assert here <= below + 1e-9
