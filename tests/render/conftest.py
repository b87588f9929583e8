"""A document with every kind of content, the size of the demo's, and one of everything unusual."""

import math
import random

import pytest

from tightframe.sections import (
    Bars,
    Card,
    Column,
    Curves,
    Document,
    Matrix,
    Remark,
    Section,
    Series,
    Table,
    Verdict,
)

NAN, INF = math.nan, math.inf
EPOCHS = tuple(map(float, (1, 2, 4, 8, 12, 20, 35, 60, 90, 140, 210, 300)))
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HOSTILE = """<b>&"'</b><script>alert(1)</script></style>"""


def falling(first: float, last: float, zeros: int = 0) -> tuple[float, ...]:
    steps = len(EPOCHS) - 1
    values = [first * (last / first) ** (step / steps) for step in range(steps + 1)]
    return (*values[: len(values) - zeros], *[0.0] * zeros)


def panel(title: str) -> Curves:
    return Curves(
        title,
        "epoch",
        (
            Series("trace ratio", EPOCHS, falling(8, 0.01), error=falling(0.8, 0.001)),
            Series("CDNV", EPOCHS, falling(3, 0.02, zeros=3)),
            Series("held out", EPOCHS, falling(8, 0.3), "held-out"),
            Series("VCI", EPOCHS, falling(30, 4), "variant"),
            Series("pooled", EPOCHS, falling(9, 0.02), "variant"),
        ),
        log_x=True,
        log_y=True,
        target=0.0,
        shuffled=8.1,
        marks=((60.0, "terminal phase begins"),),
    )


def gram(title: str) -> Matrix:
    draw = random.Random(title)
    rows = [[1.0 if i == j else draw.uniform(-0.4, 0.2) for j in range(10)] for i in range(10)]
    return Matrix(title, tuple(map(tuple, rows)), NAMES, -1.3, -0.1, 1.1, outlined=((3, 5), (5, 3)))


def measures(rows: int) -> Table:
    draw = random.Random(rows)
    columns = (
        Column("measure", "name"),
        *(Column(heading, "number") for heading in ("value", "± s.e.", "target", "shuffled")),
        *(Column("closeness", "times"), Column("convention"), Column("source", "source")),
    )
    return Table(
        columns,
        tuple(
            (
                *(f"measure {row}", draw.random(), None if row % 3 else 0.01, 0.0, draw.uniform(0, 9)),
                *(INF if row % 7 == 0 else draw.uniform(0, 1e4), "classes weigh equally", "Papyan et al. 2020, eq. 3"),
            )
            for row in range(rows)
        ),
        {0: "NC1", rows // 2: "NC2"},
    )


def cards() -> tuple[Card, ...]:
    history = (Series("train", EPOCHS, falling(9, 0.01)), Series("held out", EPOCHS, falling(9, 0.3), "held-out"))
    words = ("Samples of a class lie at one place.", "Class means are far apart.", "Rows point to means.")
    return tuple(
        Card(f"NC{n}", words[n % 3], f"key_{n}", 0.0123 * n, 4e-4, 0.0, 8.1, 650.3, "nearer 0", 0.31, history)
        for n in range(1, 6)
    )


@pytest.fixture
def document() -> Document:
    accuracies = (*(0.9 - 0.05 * place for place in range(9)), None)
    classes = tuple((name, 5000, 0.9, 1.5, -0.25) for name in NAMES)
    heads = (
        *(Column("class", "name"), Column("samples", "count"), Column("accuracy %", "percent")),
        *(Column("norm", "number"), Column("cosine", "cosine")),
    )
    return Document(
        "CIFAR-10 · ResNet-18",
        ("epoch 300", "50,000 samples"),
        Verdict("Collapsed", "All five phenomena are near their targets.", "good", "Stop training here."),
        (Remark("batch-norm", "Batch normalisation lags behind.", "Run the data once in train mode."),),
        cards(),
        (
            Section(
                "training", "Over training", ("Lower is better.", "NC1 falls."), figures=tuple(map(panel, "abcdef"))
            ),
            Section("gram", "Gram matrices", ("White is the simplex.",), figures=tuple(map(gram, "abcd"))),
            Section("accuracy", "Accuracy", figures=(Bars("accuracy", NAMES, accuracies, ("5,000",) * 10),)),
            Section("classes", "Classes", ("A row for each class.",), Table(heads, classes)),
            Section("measures", "All measures", ("Everything.",), measures(80), searchable=True),
            Section("conventions", "Conventions", ("Definitions.",), measures(4), folded=True),
        ),
        ("Features were sampled.", "Small classes are left out.", "The bias is ignored."),
        (("command", "tightframe measure --seed 0"), ("seed", "0")),
        {"report.csv": lambda: "name,value\nnc1,0.0123\n", "report.json": lambda: '{"end": "</script>"}'},
    )


UNUSUAL = (
    Curves("no series", "epoch", ()),
    Curves("one point", "epoch", (Series("a", (3.0,), (0.2,)),), log_y=True, target=0.0),
    Curves("one zero", "epoch", (Series("a", (3.0,), (0.0,)),), log_y=True, target=0.0),
    Curves("missing", "epoch", (Series("a", (1.0, 2.0), (NAN, NAN)), Series("b", (1.0, 2.0), (INF, -INF)))),
    Curves("below", "epoch", (Series("a", (0.0, 1.0, 2.0), (5.0, -1.0, INF)),), log_x=True, log_y=True, shuffled=-3.0),
    Curves("huge span", "x", (Series("a", (1.0, 2.0, 3.0), (1e-300, 1.0, 1e300)),), log_y=True, target=0.0),
    Curves("huge", "x", (Series("a", (1.0, 2.0, 3.0), (-1.7e308, 1.0, 1.7e308)),)),
    Curves("constant", "x", (Series("a", (1.0, 1.0), (7.0, 7.0)),), target=7.0, shuffled=7.0),
    Curves("levels", "x", (Series("a", (1.0, 2.0), (1.0, 2.0)),), target=NAN, shuffled=INF),
    Curves("band", "x", (Series("a", (1.0, 2.0, 3.0), (1.0, 0.1, NAN), error=(2.0, NAN, INF)),), log_y=True),
    Curves("variants only", "x", (Series("v", (1.0, 2.0), (1.0, 2.0), "variant"),)),
    Curves(
        "many",
        "layer",
        tuple(Series(f"{HOSTILE} {place}", (0.0, 1.0, 59.0), (1.0, 2.0, 3.0)) for place in range(12)),
        HOSTILE,
        categories=tuple(f"model.encoder.layers.{place}.attention" for place in range(60)),
        marks=((5.0, HOSTILE), (6.0, "a long label of a mark that goes on and on and on"), (99.0, "outside")),
    ),
    Matrix("one class", ((1.0,),), ("a",), -1, 0, 1),
    Matrix("missing", ((NAN, INF), (-INF, 0.5)), (HOSTILE, "b"), -1, 0, 1, outlined=((0, 0),)),
    Matrix("no values", (), (), 0, 0, 0),
    Matrix("no range", ((1.0, 2.0), (1.0, 1.0)), ("a", "b"), 1, 1, 1),
    Matrix("300 classes", ((0.25,) * 300,) * 300, tuple(map(str, range(300))), -1, 0, 1, outlined=((299, 0),)),
    Bars("no bars", (), ()),
    Bars("missing", ("a", "b", "c"), (None, NAN, INF), most=0.0),
    Bars("beyond", ("a", "b"), (2.0, -1.0)),
    Bars("300 classes", tuple(f"{HOSTILE} {place}" for place in range(300)), (0.5,) * 300, ("n",) * 300),
)
"""Figures of values that are missing, equal, huge or many."""


@pytest.fixture
def unusual() -> Document:
    odd = (None, NAN, INF, -INF, 0, -0.0, 1e-300, 1e300, HOSTILE)
    kinds = ("text", "name", "number", "count", "percent", "cosine", "times", "source")
    table = Table(tuple(Column(HOSTILE, kind) for kind in kinds), tuple((cell,) * 8 for cell in odd), {8: HOSTILE})
    blank = Table((Column("a"),), ())
    return Document(
        HOSTILE,
        (HOSTILE,),
        Verdict(HOSTILE, HOSTILE, "unknown", HOSTILE),
        (Remark(HOSTILE, HOSTILE, HOSTILE),),
        (
            Card("NC1", HOSTILE, HOSTILE, NAN, NAN, NAN, INF, NAN, HOSTILE, NAN, (Series("a", (1.0,), (NAN,)),)),
            Card("NC2", "", "key", -INF, closeness=INF, history=(Series("a", (1.0,), (0.3,)), Series("b", (), ()))),
        ),
        (
            Section("figures", HOSTILE, (HOSTILE,), figures=UNUSUAL),
            Section("empty", "Empty"),
            Section("no-rows", "No rows", ("",), blank, searchable=True),
            Section("no-columns", "No columns", table=Table((), ())),
            Section("odd", "Odd", table=table, folded=True, searchable=True),
        ),
        (HOSTILE,),
        ((HOSTILE, HOSTILE),),
        {HOSTILE: lambda: HOSTILE},
    )
