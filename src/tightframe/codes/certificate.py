"""`Certificate`: the quality of K vectors in R^D as a spherical code, as plain values and as a document."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from tightframe.codes.bounds import Bound
from tightframe.codes.code import Code
from tightframe.codes.random_vectors import random_cosine
from tightframe.plain import json_text, written_to
from tightframe.sections import Column, Document, Section, Table, Tone, Verdict, signed

_COLUMNS = (
    Column("quantity", "name"),
    Column("value", "number"),
    Column("reference", "number"),
    Column("name"),
)


@dataclass(frozen=True, repr=False)
class Certificate:
    """The quality of K vectors in R^D as a spherical code. Cosines ignore the lengths of vectors."""

    num_vectors: int
    dim: int
    min_norm: float
    max_norm: float
    max_cosine: float
    """Largest cosine between two vectors, which a spherical code minimises."""
    min_angle: float
    """Smallest angle between two vectors, in degrees."""
    mean_max_cosine: float
    """Mean over vectors of the largest cosine with another vector."""
    coherence: float
    """Largest |cosine| between two vectors."""
    one_vs_rest: float | None
    """Smallest distance of a unit vector from the convex hull of the others; None if skipped."""
    bound: Bound
    """The best lower bound on the largest cosine of any K vectors in R^D."""
    line_bound: Bound
    """The best lower bound on the coherence."""
    gap_cosine: float
    """max_cosine minus its bound."""
    gap_degrees: float
    """The angle that the bound allows minus min_angle, in degrees."""
    mean_cosine: float
    """Mean cosine of two vectors."""
    best_listed: Code | None
    """The code with the smallest largest cosine in the built-in table that provides K vectors in R^D."""
    optimal: bool | None
    """True: proven optimal, to 1e-9 in cosine. False: a better code is listed. None: unknown, or the optimum or
    the listed code is met to less than that precision."""
    word: str
    """The verdict in a word or a few."""
    reason: str
    """The verdict in a sentence or two."""
    tone: Tone
    centred: Certificate | None
    """If the mean cosine is at least 0.2: the certificate of the vectors minus their mean."""
    gram_residual: float | None
    """Largest distance between a cosine and the nearest inner product of `gram_of`."""
    gram_of: str | None
    """The simplex or known code whose inner products the vectors should have; None if there is none."""
    skipped: tuple[str, ...]
    """One sentence for each skipped quantity."""

    @property
    def verdict(self) -> Verdict:
        """Whether the vectors are proven optimal, in a word, with the reason."""
        return Verdict(self.word, self.reason, self.tone)

    def as_remark(self, verdict: Verdict) -> Certificate:
        """The same certificate for vectors with another aim than separation: the verdict on that aim comes first."""
        reason = f"{verdict.sentence} Separation is not their aim; as a spherical code: {self.word}. {self.reason}"
        return replace(self, word=verdict.word, reason=reason, tone=verdict.tone)

    def document(self, *sections: Section) -> Document:
        """The certificate as a document for any renderer, with further sections."""
        hint = f"{self._title}: each quantity with its bounds and targets."
        table = Table(_COLUMNS, tuple(self.rows()))
        own, last = (
            [Section("certificate", "Certificate", (hint,), table)],
            Section("sources", "Sources", self.sources()),
        )
        if self.centred is not None:
            centred = f"{self.centred.word}. {self.centred.reason}"
            own.append(Section("centred", "Centred rows", (centred,), Table(_COLUMNS, tuple(self.centred.rows()))))
        return Document(self._title, (), self.verdict, sections=(*own, *sections, last), notes=self.skipped)

    def keys(self) -> list[str]:
        """The names of the fields, so that `dict(certificate)` is {field: value}."""
        return [each.name for each in fields(self)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __getitem__(self, field: str) -> Any:
        """The value of a field. Raises: KeyError that names similar fields."""
        names = self.keys()
        if field in names:
            return getattr(self, field)
        like = difflib.get_close_matches(str(field), names, n=3)
        hint = f"did you mean {' or '.join(map(repr, like))}?" if like else f"there are: {', '.join(names)}"
        raise KeyError(f"no field {field!r}; {hint}")

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The verdict and all fields as JSON text, also written to `path` if given."""
        return written_to(json_text({"verdict": asdict(self.verdict), **asdict(self)}, indent=1), path)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """A self-contained page with the verdict and the table, also written to `path` if given."""
        return written_to(self.document().to("page"), path)

    def to_markdown(self, path: str | os.PathLike[str] | None = None) -> str:
        """The certificate as Markdown, also written to `path` if given."""
        return written_to(self.document().to("markdown"), path)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Rows of quantity, value, reference and the name of the reference. A quantity with several references has its
        name and value in the first row only."""
        K, D, bound, code = self.num_vectors, self.dim, self.bound, self.best_listed
        listed = [] if code is None else [(code.cosine, f"best listed: {code}")]
        cosines = [(bound.value, f"{bound.name} bound"), *listed, (random_cosine(K, D), "median of random vectors")]
        angles = [(bound.value, f"{bound.name} bound"), *listed]
        simplex = K <= D + 1
        top = (-1 / (K - 1), "simplex") if simplex else (self.max_cosine, "the largest cosine")
        lines = [
            ("lengths", _range(self.min_norm, self.max_norm), [("equal", "")]),
            ("largest cosine", _cosine(self.max_cosine), [(_cosine(value), name) for value, name in cosines]),
            ("smallest angle", _angle(self.min_angle), [(_angle(_degrees(value)), name) for value, name in angles]),
            ("gap in cosine", signed(f"{self.gap_cosine:.3g}"), [("0", f"{bound.name} bound")]),
            ("gap in angle", signed(f"{self.gap_degrees:.3g}°"), [("0°", f"{bound.name} bound")]),
            ("mean of row maxima", _cosine(self.mean_max_cosine), [(_cosine(top[0]), top[1])]),
            ("mean cosine", _cosine(self.mean_cosine), [(_cosine(-1 / (K - 1)), "zero sum")]),
            (
                "largest |cosine|",
                _cosine(self.coherence),
                [(_cosine(self.line_bound.value), f"{self.line_bound.name} bound")],
            ),
        ]
        if self.one_vs_rest is not None:
            value, name = one_vs_rest_bound(K, D, bound.value)
            lines.append(("one-vs-rest distance", _cosine(self.one_vs_rest), [(_cosine(value), f"bound {name}")]))
        if self.gram_residual is not None:
            lines.append(("Gram residual", f"{self.gram_residual:.3g}", [("0", f"{self.gram_of}")]))
        return [
            ("" if place else quantity, "" if place else own, reference, name)
            for quantity, own, references in lines
            for place, (reference, name) in enumerate(references)
        ]

    def sources(self) -> tuple[str, ...]:
        """Where the bounds and the listed code come from."""
        named = [(f"{bound.name} bound", bound.source) for bound in (self.bound, self.line_bound)]
        if (code := self.best_listed) is not None:
            named.append((f"{code}, {code.K:,} vectors in {code.D:,} dimensions", code.source))
        if self.one_vs_rest is not None:
            named.append(("one-vs-rest distance", "Jiang et al. 2023, Generalized neural collapse"))
        return tuple(f"{name}: {source}." for name, source in dict(named).items())

    @property
    def _title(self) -> str:
        return f"{self.num_vectors:,} vectors in {self.dim:,} dimensions"

    def __repr__(self) -> str:
        phrases = (
            f"largest cosine {_cosine(self.max_cosine)}",
            f"bound {_cosine(self.bound.value)}",
            f"smallest angle {_angle(self.min_angle)}",
        )
        text: str = Document(self._title, phrases, self.verdict).to("terminal")
        return text.rstrip("\n")

    def _repr_html_(self) -> str:
        text: str = self.document().to("page", top=True)
        return text


def one_vs_rest_bound(num_vectors: int, dim: int, cosine: float) -> tuple[float, str]:
    """Upper bound on the one-vs-rest distance of K unit vectors in R^D if two have this cosine, and its name.

    Their chord is one bound. A second bound is 1 for K > D + 1: some vector x lies outside a simplex of other vectors.
    Either the simplex contains the centre, at distance 1 from x, or its point p nearest to the centre has
    <x, p> >= |p|^2 for all vectors x, so that |x - p| <= 1. For K <= D + 1 the simplex ETF attains the maximum.
    """
    if num_vectors <= dim + 1:
        return num_vectors / (num_vectors - 1), "by the simplex ETF"
    chord = math.sqrt(2 - 2 * cosine)
    return (1.0, "for K > D + 1") if chord >= 1 else (chord, "by the largest angle")


def _degrees(cosine: float) -> float:
    return math.degrees(math.acos(cosine))


def _cosine(value: float) -> str:
    return signed(f"{value:z.9f}")


def _angle(degrees: float) -> str:
    return f"{degrees:.6f}°"


def _range(low: float, high: float) -> str:
    ends = [f"{end:.5g}" for end in (low, high)]  # two of them fit into 80 columns
    return " – ".join(dict.fromkeys(ends))
