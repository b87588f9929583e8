"""`tightframe prototypes`: every option, its numbers beside the library's or mathematics', and what is refused."""

import math
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.cells import cell_len
from rich.console import Console
from safetensors.torch import save_file

from tightframe.cli import prototypes as command
from tightframe.cli.failures import in_flags
from tightframe.cli.matrices import read_cost, read_matrix
from tightframe.cli.prototypes import flags_by_argument, transposition
from tightframe.codes import Code, Progress, Search
from tightframe.errors import CostMatrixError, DtypeError, GeometryWarning, SearchWarning, ShapeError, StateError
from tightframe.prototypes import Prototypes, code
from tightframe.prototypes.hierarchical import hierarchical
from tightframe.prototypes.metric_guided import metric_guided
from tightframe.prototypes.polytopes import hypercube, orthonormal, orthoplex, polygon
from tightframe.prototypes.simplex import simplex
from tightframe.search import SECONDS
from tightframe.sections import signed

Command = Callable[..., Any]
LINE = np.abs(np.subtract.outer(np.arange(5.0), np.arange(5.0)))  # |i - j|


def icosahedron() -> torch.Tensor:
    return code("icosahedron").vectors


def saved(name: str, array: torch.Tensor) -> Path:
    np.save(name, array.numpy())
    return Path(name)


# ---------------------------------------------------------------------------------------------- building


def test_the_icosahedron_is_found_saved_and_certified(tightframe: Command, here: Path) -> None:
    outcome = tightframe("prototypes", "-k", "12", "-d", "3", "--time", "5", "--seed", "3", "-o", "p.safetensors")
    assert outcome.status == 0, outcome.err
    assert outcome.err == ""
    assert "12 vectors in 3 dimensions" in outcome.plain
    assert "63.434949°" in outcome.plain
    assert "0.447213595" in outcome.plain
    assert outcome.out.startswith("OPTIMAL ")
    assert "wrote p.safetensors" in outcome.plain
    assert "The icosahedron (12 vectors in 3 dimensions); no smaller largest cosine is possible." in outcome.plain
    certificate = Prototypes.load("p.safetensors").certificate
    assert certificate.optimal is True
    assert certificate.min_angle == pytest.approx(math.degrees(math.atan(2)), abs=1e-9)


def test_the_solver_alone_by_rounds_is_repeatable(tightframe: Command, here: Path) -> None:
    arguments = ("prototypes", "-k", "7", "-d", "3", "--objective", "separated", "--rounds", "1", "--seed", "2")
    assert tightframe(*arguments, "--scale", "2.5", "-o", "a.safetensors").status == 0
    assert tightframe(*arguments, "-o", "b.safetensors").status == 0
    one, other = Prototypes.load("a.safetensors"), Prototypes.load("b.safetensors")
    torch.testing.assert_close(one.vectors, 2.5 * other.vectors)
    assert (one.provenance["constructor"], one.provenance["seed"]) == ("separated", 2)
    assert one.provenance["rounds"] == 1


def test_a_code_of_many_vectors_is_taken_as_it_is_unless_a_search_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[tuple[int, float]] = []

    def separate(K: int, D: int, search: Search, *, code: Code) -> tuple[torch.Tensor, SimpleNamespace]:
        searched.append((K, search.seconds))
        running = SimpleNamespace(start=code.name, best=code.cosine, round=1, facts={})
        return torch.nn.functional.pad(code.vectors(K), (0, D - code.D)), running

    monkeypatch.setattr(sys.modules["tightframe.prototypes.best"], "separate", separate)
    console = Console(quiet=True)
    for given in ({"-k": 16_384, "-d": 127}, {"-k": 16_384, "-d": 127, "--time": 3.0}, {"-k": 90, "-d": 16}):
        command.build_prototypes(None, given, console)
    assert searched == [(16_384, 3.0), (90, SECONDS)]


def test_a_warm_start_is_where_the_search_begins(tightframe: Command, here: Path) -> None:
    torch.manual_seed(0)
    saved("start.npy", icosahedron() + 0.01 * torch.randn(12, 3, dtype=torch.float64))
    options = ("-k", "12", "-d", "3", "--objective", "separated", "--rounds", "1")
    outcome = tightframe("prototypes", *options, "--warm-start", "start.npy")
    assert outcome.status == 0, outcome.err
    assert "warm_start true" in outcome.plain
    assert outcome.out.startswith("OPTIMAL ")


@pytest.mark.parametrize(
    ("objective", "K", "D", "expected"),
    [
        ("simplex", 6, 7, simplex(6, 7)),
        ("orthonormal", 4, 5, orthonormal(4, 5)),
        ("orthoplex", 9, 5, orthoplex(9, 5)),
        ("hypercube", 12, 6, hypercube(12, 6)),
        ("polygon", 7, 2, polygon(7, 2)),
    ],
)
def test_constructions_by_name(
    tightframe: Command, here: Path, objective: str, K: int, D: int, expected: Prototypes
) -> None:
    outcome = tightframe("prototypes", "-k", K, "-d", D, "--objective", objective, "-o", "p.safetensors")
    assert outcome.status == 0, outcome.err
    torch.testing.assert_close(Prototypes.load("p.safetensors").vectors, expected.vectors, rtol=0, atol=0)
    certificate = expected.certificate
    assert signed(f"{certificate.max_cosine:.9f}") in outcome.plain
    assert outcome.plain.startswith(f"{certificate.word} {certificate.reason}")


def test_poles_and_codes(tightframe: Command, here: Path) -> None:
    assert tightframe("prototypes", "--objective", "poles", "-k", "2", "-d", "3", "-o", "p.safetensors").status == 0
    assert Prototypes.load("p.safetensors").vectors.tolist() == [[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0]]
    outcome = tightframe("prototypes", "--code", "schlafli", "-o", "p.safetensors")
    assert outcome.status == 0, outcome.err
    assert Prototypes.load("p.safetensors") == code("schlafli")
    assert "0.250000000" in outcome.plain
    assert outcome.out.startswith("OPTIMAL ")
    assert tightframe("prototypes", "--code", "schlafli", "-k", "16", "-o", "p.safetensors").status == 0
    assert Prototypes.load("p.safetensors") == code("schlafli", 16)


def test_published_objectives(tightframe: Command, here: Path) -> None:
    for objective, K, D, key, value in (
        ("hyperspherical", 4, 3, "mean_max_cosine", -1 / 3),
        ("softmax-code", 6, 3, "one_vs_rest", 1.0),
        ("gram-matching", 4, 3, "residual", 0.0),
    ):
        options = ("-k", K, "-d", D, "--objective", objective, "--rounds", 1, "-o", "p.safetensors")
        assert tightframe("prototypes", *options).status == 0
        assert Prototypes.load("p.safetensors").provenance[key] == pytest.approx(value, abs=1e-9), objective


def test_equiangular_needs_an_alpha_that_is_possible(tightframe: Command, here: Path) -> None:
    options = ("prototypes", "-k", "6", "-d", "3", "--rounds", "1", "-o", "p.safetensors")
    assert tightframe(*options, "--alpha", "0.45").status == 0
    vectors = Prototypes.load("p.safetensors").vectors
    assert ((vectors @ vectors.mT) - torch.eye(6)).abs().max() <= 0.45
    refused = tightframe(*options, "--alpha", "0.4")
    assert refused.status == 2
    assert "0.447214" in refused.complaint  # 1/sqrt(5), of the six diagonals of the icosahedron


def test_warnings_are_lines(tightframe: Command, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def best(num_classes: int, dim: int) -> Prototypes:
        warnings.warn("two classes [coincide]", GeometryWarning, stacklevel=2)
        return polygon(num_classes)

    monkeypatch.setattr(command, "constructions", lambda: {"best": best})
    outcome = tightframe("prototypes", "-k", "7", "-d", "2")
    assert outcome.status == 0, outcome.err
    assert outcome.err.splitlines() == ["warning: two classes [coincide]"]
    assert outcome.out.startswith("OPTIMAL ")


def test_warnings_and_notes_name_flags(tightframe: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def equiangular(num_classes: int, dim: int, alpha: float) -> Prototypes:
        text = "above alpha=0.5. Search longer, with time= or rounds=, raise alpha, increase dim, or use "
        warnings.warn(f"{text}prototypes.softmax_code(7, 2).", SearchWarning, stacklevel=2)
        return polygon(num_classes)

    monkeypatch.setattr(command, "constructions", lambda: {"equiangular": equiangular})
    monkeypatch.setattr(sys.modules["tightframe.codes.certify"], "one_vs_rest_limit", lambda dim: 2)
    outcome = tightframe("prototypes", "-k", "7", "-d", "2", "--alpha", "0.5")
    assert outcome.status == 0, outcome.err
    text = "above --alpha 0.5. Search longer, with --time or --rounds, raise --alpha, increase -d, or use "
    assert outcome.complaint == f"warning: {text}--objective softmax-code."
    assert "more than 5 seconds. Pass --one-vs-rest to compute it." in outcome.plain


def test_names_of_files_are_no_patterns() -> None:
    names = flags_by_argument({"--gram": Path("a(1)+[dim].npy"), "-d": 3})
    message = "gram must be square, (K, K); got shape (5, 3) with dim=3."
    assert in_flags(message, names) == "--gram a(1)+[dim].npy must be square, (K, K); got shape (5, 3) with -d 3."


def test_semantic_order_from_word_vectors_and_from_similarities(tightframe: Command, here: Path) -> None:
    torch.manual_seed(0)
    words = torch.randn(5, 8, dtype=torch.float64)
    unit = torch.nn.functional.normalize(words)
    found = []
    for name, matrix in (("words.npy", words), ("similarity.npy", unit @ unit.mT)):
        saved(name, matrix)
        outcome = tightframe("prototypes", "--vectors", name, "-d", "3", "--rounds", "1", "-o", "p.safetensors")
        assert outcome.status == 0, outcome.err
        found.append(Prototypes.load("p.safetensors"))
        assert found[-1].provenance["constructor"] == "semantic"
    torch.testing.assert_close(found[0].vectors, found[1].vectors, rtol=0, atol=1e-6)


def test_a_gram_matrix_to_come_near_to(tightframe: Command, here: Path) -> None:
    frame = icosahedron()
    saved("gram.npy", frame @ frame.mT)
    options = ("--objective", "gram-matching", "--gram", "gram.npy", "-k", "12", "-d", "3", "--rounds", "1")
    assert tightframe("prototypes", *options, "-o", "p.safetensors").status == 0
    vectors = Prototypes.load("p.safetensors").vectors
    torch.testing.assert_close(vectors @ vectors.mT, frame @ frame.mT, rtol=0, atol=1e-7)


def test_a_gram_matrix_fixes_the_sizes(tightframe: Command, here: Path) -> None:
    frame = icosahedron()
    saved("gram.npy", (frame @ frame.mT).float())
    assert tightframe("prototypes", "--gram", "gram.npy", "--rounds", "1", "-o", "p.safetensors").status == 0
    vectors = Prototypes.load("p.safetensors").vectors
    assert vectors.shape == (12, 3)
    torch.testing.assert_close(vectors @ vectors.mT, frame @ frame.mT, rtol=0, atol=1e-6)


@pytest.mark.parametrize("objective", ["separated", "gram-matching", "hyperspherical"])
def test_a_warm_start_fixes_the_sizes(tightframe: Command, here: Path, objective: str) -> None:
    saved("start.npy", icosahedron())
    options = ("--warm-start", "start.npy", "--objective", objective, "--rounds", "1", "-o", "p.safetensors")
    assert tightframe("prototypes", *options).status == 0
    assert Prototypes.load("p.safetensors").vectors.shape == (12, 3)


def test_costs_from_a_file(tightframe: Command, here: Path) -> None:
    np.savetxt("cost.csv", LINE, delimiter=",")
    options = ("prototypes", "--cost", "cost.csv", "-d", "2", "-o", "p.safetensors")
    outcome = tightframe(*options, "--objective", "metric-guided", "-k", "5")
    assert outcome.status == 0, outcome.err
    assert Prototypes.load("p.safetensors") == metric_guided(torch.from_numpy(LINE), 2)
    outcome = tightframe(*options, "--gamma", "1.5")
    assert outcome.status == 0, outcome.err
    assert Prototypes.load("p.safetensors") == hierarchical(torch.from_numpy(LINE), 2, gamma=1.5)


@pytest.mark.parametrize("objective", ["hierarchical", "metric-guided"])
def test_vectors_made_for_costs_are_judged_by_them_first(tightframe: Command, here: Path, objective: str) -> None:
    Path("tree.json").write_text('{"all": {"animal": ["cat", "dog", "rat"], "tool": ["saw", "awl"], "cup": ["mug"]}}')
    options = ("--tree", "tree.json", "-d", "2", "--objective", objective, "-o", "p.safetensors")
    built = tightframe("prototypes", *options)
    assert built.status == 0, built.err
    for outcome in (built, tightframe("prototypes", "--verify", "p.safetensors")):
        assert outcome.plain.startswith("MADE FOR COSTS Made for ")
        assert "Separation is not their aim; as a spherical code: " in outcome.plain
        assert "caption" not in outcome.plain


def test_a_tree_from_a_file(tightframe: Command, here: Path) -> None:
    Path("tree.json").write_text('{"all": {"pet": ["cat", "dog"], "tool": ["saw", "awl"]}}')
    gamma = 2 * math.log(2)
    outcome = tightframe("prototypes", "--tree", "tree.json", "--gamma", gamma, "-o", "p.safetensors")
    assert outcome.status == 0, outcome.err
    loaded = Prototypes.load("p.safetensors")
    products = (loaded.vectors @ loaded.vectors.mT)[0]
    torch.testing.assert_close(products, torch.tensor([1, 0, -0.5, -0.5]).double(), rtol=0, atol=1e-12)
    assert loaded.provenance["names"] == ["cat", "dog", "saw", "awl"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("-k 1 -d 3", "error: -k must be at least 2; got 1.$"),
        ("-k 0 --objective orthoplex", "error: -k must be at least 2; got 0.$"),
        ("-k -1 --code petersen", "error: -k must be at least 2; got -1.$"),
        ("-k 3 -d 0", "error: -d must be at least 1; got 0.$"),
        ("-k 3 -d -2 --objective softmax-code", "error: -d must be at least 1; got -2.$"),
        ("-k 4 -d 1 --objective polygon", "error: -d must be at least 2 for a polygon; got 1.$"),
        ("-k 3 -d 1 --objective separated", "on a line; got 3 with -d 1. Increase -d.$"),
        ("-k 6 -d 3 --objective simplex", r"-k must be at most 4 \(D \+ 1\) for .* Increase -d, or use --objective"),
        ("-k 9 -d 3 --objective hypercube", r"-k must be at most 8 \(2\^D\) for a hypercube"),
        ("-k 11 --code petersen", "-k must be at most 10 for the code 'petersen'; got 11. Use --objective best"),
        ("-d 3 --code petersen", "-d must be at least 4 for the code 'petersen'; got 3."),
        ("-k 3 -d 2 --objective poles", r"-k must be .* at most 2 \(D\), .* Increase -d, or reduce -k.$"),
        ("-k 9 -d 100000000000", "a matrix of 9 vectors in 100,000,000,000 dimensions needs .* Reduce -k or -d.$"),
        ("-k 9000000 --objective orthonormal", r"9,000,000 dimensions needs .* at most D vectors; --objective"),
        ("-k 9000000 --objective gram-matching", "a Gram matrix of 9,000,000 vectors needs .* Reduce -k.$"),
        ("--code petersen -d 100000000000", "a matrix of 10 vectors in 100,000,000,000 dimensions needs"),
        ("-d 3 --objective gram-matching", r"gram matching needs -k K, or --gram target of shape \(K, K\)"),
        ("-k 6 -d 3 --alpha 0.1", "--alpha must be at least 0.447214 .* Raise --alpha, increase -d, or reduce -k.$"),
        ("-k 6 -d 3 --alpha nan", r"--alpha must be a largest \|cosine\| in \[0, 1\); got nan"),
        ("-k 5 -d 3 --gram rows.npy", r"--gram rows.npy must be square, \(K, K\); got shape \(5, 3\)"),
        ("-k 4 -d 3 --gram cost.npy", r"--gram cost.npy must be \(K, K\) = \(4, 4\) for -k 4; got \(5, 5\)"),
        ("-k 5 -d 3 --gram cost.npy", r"--gram cost.npy must have a positive diagonal .*; entry \(0, 0\) is 0"),
        ("-k 5 -d 3 --gram nan.npy", r"--gram nan.npy must be finite; entry \(0, 1\) is nan"),
        ("-k 5 -d 3 --gram two.npz", "two.npz has several matrices; give a file with one matrix. Its arrays"),
        ("-d 0 --vectors rows.npy", "-d must be at least 1; got 0"),
        ("-d 3 --vectors pair.npy", "--vectors pair.npy must have at least three classes to rank; got 2"),
        ("-d 3 --vectors zero.npy", "--vectors zero.npy must be non-zero; class 1 has a zero vector"),
        ("-d 3 --vectors nan.npy", "--vectors nan.npy must be finite .*; row 0 holds nan in column 1"),
        ("-d 0 --objective metric-guided --cost cost.npy", "-d must be at least 1; got 0"),
        ("-d 0 --objective hierarchical --cost cost.npy", "-d must be at least 1; got 0"),
        ("-d 2 --objective metric-guided --cost rows.npy", r"--cost rows.npy must be a square matrix, \(K, K\)"),
        ("-d 2 --objective hierarchical --cost nan.npy", r"--cost nan.npy must be finite; entry \(0, 1\) is nan"),
        ("-d 2 --objective hierarchical --cost lone.npy", "--cost lone.npy must have at least two classes; got 1"),
        ("-d 2 --objective metric-guided --tree lone.json", "--tree lone.json must have at least two classes; got 1"),
        ("--gamma 0 --cost cost.npy", "--gamma must be finite and > 0; got 0.0"),
        ("-d 2 --objective hierarchical --cost triangle.csv", r"plus 1 of \(1, 2\). Correct the costs.$"),
        ("--verify nan.npy", "--verify nan.npy must be finite .*; row 0 holds nan in column 1"),
        ("--verify lone.npy", r"--verify lone.npy must be \(K, D\) with K >= 2 rows"),
        ("--verify zero.npy", "--verify zero.npy must have a direction; row 1 is zero"),
        ("-k 3", "best needs -d"),
        ("-d 3", "best needs -k"),
        ("-k 3 -d 2 --objective nothing", "--objective must be one of best, simplex, .*separated, .*got 'nothing'"),
        ("--code nothing", "--code must be a name in the list that `tightframe codes` prints; got 'nothing'"),
        ("-d 2 --objective metric-guided", "metric-guided needs --cost or --tree"),
        ("-d 2 --objective semantic", "semantic needs --vectors"),
        ("-d 2 --cost a.csv --tree b.json", "--cost and --tree exclude each other"),
        ("-d 2 --cost cost.csv", "--cost needs --objective metric-guided or hierarchical."),
        ("-k 3 -d 2 --objective simplex --time 3", "--time needs --objective best or separated or "),
        ("-d 2 --cost missing.csv --objective metric-guided", "missing.csv doesn't exist"),
        ("-d 2 --cost triangle.csv --objective metric-guided", r"worst triple is \(i, j, k\) = \(0, 1, 2\)"),
        ("-d 2 --cost cost.csv --objective metric-guided -k 7", "-k is 7, but the file has 5 classes"),
        ("-d 2 --tree missing.json --objective metric-guided", "missing.json"),
        ("-d 2 --tree cyclic.csv --objective metric-guided", "a tree has no cycle"),
        ("-k 5 -d 3 --objective separated --time 0", "time must be a positive number"),
        ("-k 4 -d 3 --objective simplex --scale -1", "scale must be positive"),
        ("-k 4 -d 3 --objective simplex -o p.npy", "--out writes .safetensors files; got p.npy"),
        ("-k 4 -d 3 --objective simplex -o no/p.safetensors", "there is no folder no"),
        ("-k 4 -d 3 --objective simplex --plot p.gif", "--plot writes .png or .pdf or .svg files; got p.gif"),
        ("--verify a.npy -k 3", "leave out -k"),
        ("--verify a.npy -o p.safetensors", "--verify reads vectors and builds none"),
        ("-k 3 -d 2 --columns", "--key and --columns read the file of --verify; give --verify"),
        ("-k 12 -d 3 --objective separated --warm-start start.npy", r"--warm-start start.npy must be \(12, 3\); got"),
    ],
)
def test_bad_requests_are_one_line(tightframe: Command, here: Path, arguments: str, complaint: str) -> None:
    np.savetxt("cost.csv", LINE, delimiter=",")
    np.savetxt("triangle.csv", [[0, 1, 5], [1, 0, 1], [5, 1, 0]], delimiter=",")
    Path("cyclic.csv").write_text("a,b\nb,a\n")
    np.save("start.npy", LINE)
    np.save("cost.npy", LINE)
    np.save("rows.npy", LINE[:, :3] + 1)
    np.save("pair.npy", LINE[:2] + 1)
    np.save("zero.npy", np.diag([1.0, 0.0, 1.0, 1.0])[:, :3])
    np.save("nan.npy", np.where((LINE == 1) & (np.arange(5) == 1), np.nan, LINE))
    np.save("lone.npy", np.zeros((1, 1)))
    np.savez("two.npz", one=LINE, two=LINE)
    Path("lone.json").write_text('{"all": ["cat"]}')
    outcome = tightframe("prototypes", *arguments.split())
    assert outcome.status == 2, outcome.out
    assert len(outcome.err.splitlines()) == 1
    assert re.search(complaint, outcome.err), outcome.err


# ---------------------------------------------------------------------------------------------- verifying


def test_every_kind_of_file(tightframe: Command, here: Path) -> None:
    vectors = icosahedron()
    np.save("a.npy", vectors.numpy())
    np.savez("a.npz", weight=vectors.numpy(), bias=np.zeros(12))
    torch.save({"model": {"fc.weight": vectors.float(), "fc.bias": torch.zeros(12)}, "epoch": 3}, "a.pt")
    torch.save(vectors, "a.pth")
    save_file({"w": vectors}, "a.safetensors")
    for name in ("a.npy", "a.npz", "a.pt", "a.pth", "a.safetensors"):
        outcome = tightframe("prototypes", "--verify", name)
        assert outcome.status == 0, outcome.err
        assert "63.43494" in outcome.plain, name
        assert "constructor" not in outcome.plain
        assert outcome.err == ""
        # float32 rounds by 3e-8, and the certificate says so
        assert outcome.out.startswith("OPTIMAL TO " if name == "a.pt" else "OPTIMAL  "), name


def test_our_files_tell_how_they_were_made(tightframe: Command, here: Path) -> None:
    code("petersen").save("p.safetensors")
    outcome = tightframe("prototypes", "--verify", "p.safetensors")
    assert "constructor code" in outcome.plain
    assert "source Delsarte, Goethals & Seidel 1977" in outcome.plain
    assert "name petersen" in outcome.plain
    assert outcome.out.startswith("OPTIMAL ")
    assert "Gram residual" in outcome.plain


def test_a_perturbed_optimum_is_not_certified(tightframe: Command, here: Path) -> None:
    vectors = icosahedron()
    vectors[0, 0] += 1e-6
    outcome = tightframe("prototypes", "--verify", saved("a.npy", vectors))
    assert outcome.status == 0
    assert "OPTIMAL TO 8e-07 This is the icosahedron to 8e-07" in outcome.plain


def test_an_array_of_several_is_chosen_by_name(tightframe: Command, here: Path) -> None:
    np.savez("a.npz", one=icosahedron().numpy(), two=np.eye(3), three=np.zeros(2))
    refused = tightframe("prototypes", "--verify", "a.npz")
    assert refused.status == 2
    assert "choose one with --key. Its arrays: one (12, 3), two (3, 3), three (2,)" in refused.complaint
    assert "12 vectors in 3 dimensions" in tightframe("prototypes", "--verify", "a.npz", "--key", "one").plain
    assert "has no array called 'four'" in tightframe("prototypes", "--verify", "a.npz", "--key", "four").complaint
    assert "has the shape (2,)" in tightframe("prototypes", "--verify", "a.npz", "--key", "three").complaint


def test_vectors_in_columns(tightframe: Command, here: Path) -> None:
    name = saved("a.npy", icosahedron().mT)
    outcome = tightframe("prototypes", "--verify", name, "--columns")
    assert "12 vectors in 3 dimensions" in outcome.plain
    assert outcome.out.startswith("OPTIMAL ")
    assert outcome.err == ""
    outcome = tightframe("prototypes", "--verify", name)
    assert "3 vectors in 12 dimensions" in outcome.plain
    assert "warning: a.npy looks transposed: its 12 columns" in " ".join(outcome.err.split())
    assert "give --columns" in " ".join(outcome.err.split())
    outcome = tightframe("prototypes", "--verify", saved("b.npy", simplex(5, 8).vectors), "--columns")
    assert "warning: b.npy looks transposed: its 5 rows have equal lengths" in " ".join(outcome.err.split())
    assert "leave out --columns" in " ".join(outcome.err.split())


def test_only_evidence_speaks_for_a_transposed_file() -> None:
    torch.manual_seed(0)
    turned = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64)).Q
    for vectors in (
        simplex(10, 9).vectors,
        simplex(10, 9).vectors @ turned,
        simplex(4, 100, pose="haar").vectors,
        orthonormal(5).vectors,
        orthonormal(5, 8).vectors,
        orthoplex(10).vectors,
        icosahedron(),
        turned,
        torch.randn(10, 4),
        torch.ones(3, 1),
        hypercube(8, 5).vectors,
    ):
        assert transposition(vectors) is None, vectors
    assert "its 10 columns have equal lengths" in str(transposition(simplex(10, 12, pose="haar").vectors.mT))
    # a simplex in as many dimensions as it spans is a tight frame: its rows are as long as each other too
    assert "its 10 columns are as far apart as 10 vectors can be" in str(transposition(simplex(10, 9).vectors.mT))


def test_norms_and_pairs_nearest_first(tightframe: Command, here: Path) -> None:
    angles = torch.tensor([0.0, 10.0, 35.0, 90.0]).double().deg2rad()
    lengths = torch.tensor([1.0, 2.0, 3.0, 0.5]).double()
    vectors = lengths[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1)
    outcome = tightframe("prototypes", "--verify", saved("a.npy", vectors), "--pairs")
    table = outcome.plain[outcome.plain.index("vector length") :]
    plain = " ".join(table.replace("─", " ").split())
    assert plain.startswith("vector length 0 1 1 2 2 3 3 0.5 Nearest pairs pair "), table
    found = re.findall(r"(\d) (\d) (-?\d\.\d{9}) (\d+\.\d{6})°", table)
    expected = [(0, 1, 10), (1, 2, 25), (0, 2, 35), (2, 3, 55), (1, 3, 80), (0, 3, 90)]
    assert [(int(i), int(j), float(angle)) for i, j, _, angle in found] == expected
    for (*_, angle), (*_, cosine, _) in zip(expected, found, strict=True):
        assert float(cosine) == pytest.approx(math.cos(math.radians(angle)), abs=1e-9)
    assert "more" not in table


def test_many_pairs_are_counted(tightframe: Command, here: Path) -> None:
    outcome = tightframe("prototypes", "--verify", saved("a.npy", polygon(50).vectors), "--pairs")
    assert "10 more vectors." in outcome.plain
    assert "1,185 more pairs, with larger angles." in outcome.plain  # 50 * 49 / 2 - 40
    assert outcome.plain.count(" 7.200000°") == 43  # forty pairs; the smallest angle, its bound and the tables'


@pytest.mark.parametrize("width", [60, 80, 160])
def test_terminals_of_any_width(tightframe: Command, here: Path, width: int) -> None:
    code("gosset").save("p.safetensors")
    outcome = tightframe("prototypes", "--verify", "p.safetensors", "--pairs", width=width)
    assert outcome.status == 0, outcome.err
    assert "0.333333333" in outcome.plain
    assert [line for line in outcome.out.splitlines() if cell_len(line) > width] == []


def test_the_one_vs_rest_distance_on_demand(tightframe: Command, here: Path) -> None:
    name = saved("a.npy", orthoplex(8).vectors)
    assert "one-vs-rest distance 1.000000000 1.000000000" in tightframe("prototypes", "--verify", name).plain
    without = tightframe("prototypes", "--verify", name, "--no-one-vs-rest").plain
    assert "note The one-vs-rest distance was skipped on request." in without
    assert "one-vs-rest distance 1" not in without


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.array([[1, 2], [np.nan, 1]]), "non-finite|NaN|finite"),
        (np.array([[1.0, 0], [0, 0]]), "row 1 is zero"),
        (np.array([["a", "b"]]), "must hold numbers"),
        (np.array([[1j, 2]]), "must hold real numbers"),
        (np.ones(3), "has no matrix"),
        (np.ones((1, 3)), "K >= 2"),
    ],
)
def test_arrays_that_are_no_vectors(tightframe: Command, here: Path, array: np.ndarray, complaint: str) -> None:
    np.save("a.npy", array)
    outcome = tightframe("prototypes", "--verify", "a.npy")
    assert outcome.status == 2, outcome.out
    assert re.search(complaint, outcome.err), outcome.err


# ---------------------------------------------------------------------------------------------- progress, plots


def test_a_search_without_a_terminal_prints_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(command.time, "monotonic", lambda: now[0])
    console = Console(force_terminal=False, width=200, record=True)
    with command._Watch(console, (12, 3)) as watch:
        for second, score in ((1.0, 0.7), (4.0, 0.5), (5.0, 0.49), (8.0, 0.5), (9.0, 0.46), (20.0, 0.46)):
            now[0] = second
            watch(Progress(second, int(second), score, "free"))
    lines = console.export_text().splitlines()
    assert [line.split("·")[0].strip() for line in lines] == ["4.0 s", "9.0 s"]
    assert "round 4 · cosine 0.500000000 · angle 60.0000° · gap 5.28e-02, 3.4349°" in lines[0]


def test_a_terminal_shows_one_line_that_goes_away() -> None:
    console = Console(force_terminal=True, width=100, record=True)
    with command._Watch(console, None) as watch:
        watch(Progress(1.0, 2, 0.25, "antipodal"))
        assert "round 2 · objective 0.25 · antipodal" in watch._line().plain
        watch._live.refresh()


def test_ctrl_c_keeps_the_best_so_far(tightframe: Command, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Any, progress: Progress) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command._Watch, "__call__", interrupt)
    options = ("-k", "30", "-d", "5", "--objective", "separated", "--time", "60", "-o", "p.safetensors")
    outcome = tightframe("prototypes", *options)
    assert outcome.status == 0, outcome.err
    assert "The search was stopped early; these are its best vectors." in " ".join(outcome.err.split())
    assert "wrote p.safetensors" in outcome.plain
    assert Prototypes.load("p.safetensors").provenance["interrupted"] is True
    assert "OPTIMAL " in outcome.plain


def test_a_long_certificate_is_announced_and_can_be_stopped(
    tightframe: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = saved("a.npy", icosahedron())
    monkeypatch.setattr(command, "certification_seconds", lambda K, D, one_vs_rest: 42.0)
    outcome = tightframe("prototypes", "--verify", name)
    assert "The certificate takes about 42 s; Ctrl-C skips it." in " ".join(outcome.err.split())
    assert "OPTIMAL The largest cosine meets" in outcome.plain

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "certify", interrupt)
    outcome = tightframe("prototypes", "--verify", name, "--plot", "a.png")
    assert outcome.status == 130
    assert "Stopped before the certificate was complete." in " ".join(outcome.err.split())
    assert not Path("a.png").exists()


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_plots(tightframe: Command, here: Path, suffix: str, start: bytes) -> None:
    outcome = tightframe("prototypes", "--objective", "polygon", "-k", "3", "-d", "2", "--plot", f"a.{suffix}")
    assert outcome.status == 0, outcome.err
    assert f"wrote a.{suffix}" in outcome.plain
    assert Path(f"a.{suffix}").read_bytes().startswith(start)


def test_a_plot_without_matplotlib_names_the_extra_before_the_search(
    tightframe: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "tightframe.render.prototype_figures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = tightframe("prototypes", "-k", "50", "-d", "5", "--time", "100", "--plot", "a.png")
    assert outcome.status == 2
    assert "matplotlib is not installed. Run: pip install 'tightframe[figures]'" in outcome.complaint


# ---------------------------------------------------------------------------------------------- files of matrices


@pytest.mark.parametrize(
    "text",
    [
        "0,1,2\n1,0,3\n2,3,0\n",
        "a,b,c\n0,1,2\n1,0,3\n2,3,0\n",
        "i,j,cost\n0,1,1\n0,2,2\n1,2,3\n",
        "0,1,1\n2,0,2\n1,2,3\n",
    ],
)
def test_costs_in_csv(here: Path, text: str) -> None:
    Path("cost.csv").write_text(text)
    assert read_cost(Path("cost.csv")).tolist() == [[0, 1, 2], [1, 0, 3], [2, 3, 0]]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("0,1\n1\n", StateError, "line 2 of cost.csv must be 2 numbers"),
        ("0,1\n1,x\n", StateError, "line 2 of cost.csv must be 2 numbers; got 1,x"),
        ("0,1,1\n0,2,2\n1,2,3\n0,3,1\n", CostMatrixError, r"lacks the cost of \(1, 3\)"),
        ("0,1,1\n0,2.5,2\n1,2,3\n0,3,1\n", CostMatrixError, "i, j = 0, 1, 2"),
    ],
)
def test_costs_in_csv_that_are_wrong(here: Path, text: str, error: type[Exception], message: str) -> None:
    Path("cost.csv").write_text(text)
    with pytest.raises(error, match=message):
        read_cost(Path("cost.csv"))


def test_matrices_of_any_real_numbers(here: Path) -> None:
    for dtype in (np.int8, np.uint16, np.float16, np.float32):
        np.save("a.npy", np.array([[1, 2], [3, 4]], dtype=dtype))
        matrix = read_matrix(Path("a.npy"))
        assert (matrix.dtype, matrix.tolist()) == (torch.float64, [[1, 2], [3, 4]])
    torch.save(torch.ones(2, 2, dtype=torch.bool), "a.pt")
    with pytest.raises(DtypeError, match="bool"):
        read_matrix(Path("a.pt"))
    torch.save({"x": torch.ones(2, 2, 2)}, "a.pt")
    with pytest.raises(ShapeError, match=r"\(2, 2, 2\)"):
        read_matrix(Path("a.pt"), "x")
