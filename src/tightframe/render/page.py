"""A document as one self-contained HTML page that opens offline and loads nothing."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from importlib.resources import files

from tightframe.render.bars import bars_svg, wide
from tightframe.render.curves import curves_svg, legend, sparkline, undrawn, visible
from tightframe.render.html_table import html_table
from tightframe.render.matrices import block_size, matrix_svg
from tightframe.render.styles import DARK, LIGHT
from tightframe.sections import (
    PAGE_START,
    Bars,
    Card,
    Curves,
    Document,
    Figure,
    Remark,
    Section,
    Verdict,
    error_text,
    number,
    times,
)

_NOTES = 2  # maximum number of notes shown unfolded

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""The browser may load nothing from outside the page."""


def render(document: Document, *, top: bool = False) -> str:
    """The complete text of the page.

    Args: top, return only the top as a fragment for a notebook: verdict, oddities and cards.
    """
    title = html.escape(document.title)
    parts = [
        f"<header><h1>{title}</h1>{_facts(document.facts)}</header>",
        _verdict(document.verdict) if document.verdict else "",
        _remarks(document.remarks),
        f'<div class="cards">{"".join(map(_card, document.cards))}</div>' if document.cards else "",
    ]
    if top:
        return f'<div class="tightframe"><style>{_nested_style()}</style><main>{"".join(parts)}</main></div>'
    parts += [_notes(document.notes), *(_section(section) for section in document.sections), _footer(document)]
    script = _text("page.js")
    return (
        f'{PAGE_START}{_POLICY}">'
        f'<title>{title}</title><link rel="icon" href="data:,"><style>{_style()}</style></head>\n<body>'
        '<a class="skip" href="#_main">Skip to the results</a><main id="_main" tabindex="-1">\n'
        + "\n".join(part for part in parts if part)
        + f'\n</main><div id="_tip" role="status" hidden></div>{_downloads(document)}<script>{script}</script>'
        "</body></html>\n"
    )


def _text(name: str) -> str:
    return files("tightframe.render").joinpath(name).read_text(encoding="utf-8")


def _colours(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


def _rules() -> str:
    curves = "".join(f".{name}{{color:var(--{name})}}" for name in LIGHT if name.startswith(("curve-", "held-out")))
    return f"{curves}\n{_text('page.css')}"


def _style() -> str:
    return (
        f":root{{{_colours(LIGHT)}}}@media(prefers-color-scheme:dark){{:root{{{_colours(DARK)}}}}}"
        f"@media print{{:root{{{_colours(LIGHT)}--page:#fff;--ink:#000;--soft:#333}}}}\n{_rules()}"
    )


def _nested_style() -> str:
    """The style as nested rules, for one element of another page."""
    dark = f"@media(prefers-color-scheme:dark){{{_colours(DARK)}}}"
    return f".tightframe{{{_colours(LIGHT)}{dark}\n{_rules().replace('body {', '& {')}}}"


def _facts(facts: tuple[str, ...]) -> str:
    return f'<p class="facts">{html.escape(" · ".join(facts))}</p>' if facts else ""


def _verdict(verdict: Verdict) -> str:
    more = "".join(f'<p class="advice">{html.escape(text)}</p>' for text in (verdict.advice, verdict.state) if text)
    return (
        f'<section class="verdict {verdict.tone}" aria-label="Verdict">'
        f'<h2 class="word">{html.escape(verdict.word)}</h2>'
        f'<div><p class="sentence">{html.escape(verdict.sentence)}</p>{more}</div></section>'
    )


def _remarks(remarks: tuple[Remark, ...]) -> str:
    if not remarks:
        return ""
    items = "".join(
        f"<li><p><b>{html.escape(remark.sentence)}</b> {html.escape(remark.advice)}</p>"
        f"<code>{html.escape(remark.name)}</code></li>"
        for remark in remarks
    )
    return f'<section class="remarks"><h2>What is odd</h2><ul>{items}</ul></section>'


def _card(card: Card) -> str:
    error = "" if card.error is None else f"± {html.escape(error_text(card.error))}"
    closeness = "" if card.closeness is None else f'<b class="closeness">{html.escape(times(card.closeness))}</b>'
    levels = [
        f"<div><dt>{name}</dt><dd>{html.escape(number(value))}</dd></div>"
        for name, value in (("target", card.target), ("shuffled", card.shuffled))
        if value is not None
    ]
    held = "" if card.held_out is None else f"held out {html.escape(number(card.held_out))}"
    history = tuple(series for series in card.history if series.x)
    curve = sparkline(history, log=card.log, title=f"{card.label} over training") if history else ""
    rows = (
        f'<p class="head"><b>{html.escape(card.label)}</b>{closeness}</p>',
        f'<p class="remark">{html.escape(_remark(card))}</p>',
        f'<p class="statement">{html.escape(card.statement)}</p>',
        f'<p class="value">{html.escape(number(card.value))}</p>',
        f'<p class="error">{error}</p>',
        f"<dl>{''.join(levels)}</dl>",
        f'<p class="held-out">{held}</p>',
        f"<div>{curve}</div>",
        f"<code>{html.escape(card.key)}</code>",
    )
    return f'<article class="card" aria-label="{html.escape(card.label)}">{"".join(rows)}</article>'


def _remark(card: Card) -> str:
    """The meaning of the closeness, or why it is undefined."""
    return "nearer than shuffled labels" if card.standing == "nearer" else card.remark


def _notes(notes: tuple[str, ...]) -> str:
    if not notes:
        return ""
    items = f"<ul>{''.join(f'<li>{html.escape(note)}</li>' for note in notes)}</ul>"
    if len(notes) > _NOTES:
        return f'<details class="notes"><summary>{len(notes)} notes</summary>{items}</details>'
    return f'<div class="notes">{items}</div>'


def _section(section: Section) -> str:
    key = html.escape(section.key)
    heading = html.escape(section.heading)
    link = f'<a class="anchor" href="#{key}" aria-label="Link to {heading}">#</a>'
    first, *others = section.sentences or ("",)
    parts = [f'<p class="hint">{html.escape(first)}</p>' if first else ""]
    parts += [f"<p>{html.escape(sentence)}</p>" for sentence in others]
    if section.figures:
        figures = "".join(
            _figure(figure, f"{key}-figure-{place}") for place, figure in enumerate(section.figures, start=1)
        )
        four = " four" if len(section.figures) == 4 else ""
        parts.append(f'<div class="figures{four}">{figures}</div>')
    if section.table is not None:
        if section.searchable:
            count = len(section.table.rows)
            rows = "1 row" if count == 1 else f"{count:,} rows"
            parts.append(
                f'<p class="search" hidden><input type="search" placeholder="Filter rows" aria-label="Filter rows of '
                f'{heading}"> <output aria-live="polite">{rows}</output></p>'
            )
        parts.append(html_table(section.table, f"Table: {section.heading}"))
    content = "".join(parts)
    if section.folded:
        return f'<section id="{key}"><details><summary><h2>{heading}</h2></summary>{content}</details></section>'
    return f'<section id="{key}"><h2>{heading} {link}</h2>{content}</section>'


def _figure(figure: Figure, key: str) -> str:
    caption = f"<figcaption>{html.escape(figure.title)}</figcaption>"
    if isinstance(figure, Curves):
        return f"<figure>{caption}{''.join(_curves(figure, key))}</figure>"
    caption += _undertitle(figure.note)
    if isinstance(figure, Bars):
        kind = ' class="wide"' if wide(figure) else ""
        scroll = f' tabindex="0" role="region" aria-label="{html.escape(figure.title)}"' if wide(figure) else ""
        return f'<figure{kind}>{caption}<div class="scroll"{scroll}>{bars_svg(figure)}</div></figure>'
    block = block_size(figure)
    note = f"Each point is the mean of {block} × {block} values." if block > 1 else ""
    return f"<figure>{caption}{matrix_svg(figure)}{_undertitle(note)}</figure>"


def _curves(figure: Curves, key: str) -> Iterator[str]:
    """The picture; if there are variants, also a second picture with them that the reader can switch to."""
    brief = visible(figure)
    hidden = len(figure.series) - len(brief.series)
    if not hidden:
        yield curves_svg(figure) + legend(figure) + _undertitle(undrawn(figure))
        return
    yield (
        f'<input type="checkbox" class="more" id="{key}"><label for="{key}">show variants ({hidden})</label>'
        f'<div class="brief">{curves_svg(brief)}{legend(brief)}{_undertitle(undrawn(brief))}</div>'
        f'<div class="full">{curves_svg(figure)}{legend(figure)}{_undertitle(undrawn(figure))}</div>'
    )


def _undertitle(note: str) -> str:
    return f'<p class="undertitle">{html.escape(note)}</p>' if note else ""


def _footer(document: Document) -> str:
    pairs = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in document.footer
    )
    buttons = "".join(
        f'<button type="button" data-file="{html.escape(name)}" hidden>Download {html.escape(name)}</button>'
        for name in document.downloads
    )
    if not pairs and not buttons:
        return ""
    return f'<footer><dl>{pairs}</dl><p class="downloads">{buttons}</p></footer>'


def _downloads(document: Document) -> str:
    """The texts of the downloads; "<" is escaped so that no text ends the element."""
    if not document.downloads:
        return ""
    texts = {name: text() for name, text in document.downloads.items()}
    content = json.dumps(texts, ensure_ascii=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="_files">{content}</script>'
