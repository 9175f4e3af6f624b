"""A self-contained HTML page: headings, sentences, tables and plots, nothing fetched.

Every report of needledrop (validation, factors, training, evaluation, verdict) is such a page, so
that it opens from a disk, as an artifact in the Kubeflow UI, and in an e-mail alike.
"""

import html
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from needledrop.artifacts import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
:root { color-scheme: light; --ink:#1c2330; --quiet:#5b6472; --line:#dfe3ea; --good:#11734b;
  --bad:#b3261e; --tint:#f6f7f9 }
* { box-sizing:border-box }
body { margin:0 auto; max-width:64rem; padding:2rem 1.25rem 4rem; color:var(--ink);
  background:#fff; font:16px/1.55 system-ui,sans-serif }
h1 { font-size:1.7rem; line-height:1.2; margin:0 0 .25rem }
h2 { font-size:1.15rem; margin:2.5rem 0 .5rem; padding-top:1rem; border-top:1px solid var(--line) }
p { margin:.5rem 0; max-width:46rem } .lead { color:var(--quiet) }
.scroll { overflow-x:auto; margin:1rem 0 }
table { border-collapse:collapse; font-variant-numeric:tabular-nums; font-size:.92rem }
th,td { padding:.35rem .8rem; text-align:right; border-bottom:1px solid var(--line);
  white-space:nowrap }
th { background:var(--tint); font-weight:600; white-space:normal; vertical-align:bottom }
th:first-child,td:first-child { text-align:left }
th.text { text-align:left } td.text { text-align:left; white-space:normal; min-width:14rem }
td.good { color:var(--good); font-weight:600 } td.bad { color:var(--bad); font-weight:600 }
figure { margin:1rem 0 } figure svg { max-width:100%; height:auto }
@media (max-width:40rem) {
  th,td { padding:.3rem; font-size:.8rem; white-space:normal; overflow-wrap:normal }
  td.text { min-width:5.5rem } }
figcaption { color:var(--quiet); font-size:.9rem; max-width:46rem }
"""

_WIDE_TEXT = 28
_TONES = {"passed": "good", "promoted": "good", "failed": "bad", "not promoted": "bad"}
_SVG_METADATA = ("Creator", "Date", "Format", "Type")  # left out: a page speaks for itself


class Page:
    """Builds a page from top to bottom; every text is escaped.

    Example::

        page = Page("Evaluation", lead="1,881 songs that nobody has played")
        page.heading("Models")
        page.table(["model", "mAP@500"], [["cnn", "0.231"], ["random", "0.101"]])
        page.save(path)
    """

    def __init__(self, title: str, *, lead: str = "") -> None:
        self._title = html.escape(title)
        self._body = [f"<h1>{self._title}</h1>"]
        if lead:
            self._body.append(f'<p class="lead">{html.escape(lead)}</p>')

    def heading(self, text: str) -> None:
        """Start a section."""
        self._body.append(f"<h2>{html.escape(text)}</h2>")

    def sentence(self, text: str) -> None:
        """Add a paragraph."""
        self._body.append(f"<p>{html.escape(text)}</p>")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Add a table; cells that read passed/failed are coloured, long texts are wrapped."""
        cells = [[str(value) for value in row] for row in rows]
        is_text = [any(_is_long(row[place]) for row in cells) for place in range(len(columns))]
        head = "".join(
            f'<th class="text">{html.escape(column)}</th>'
            if is_long
            else f"<th>{html.escape(column)}</th>"
            for column, is_long in zip(columns, is_text, strict=True)
        )
        body = "".join(f"<tr>{''.join(map(_cell, row, is_text))}</tr>" for row in cells)
        self._body.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def plot(self, figure: "Figure", caption: str) -> None:
        """Add a matplotlib figure as inline SVG; the caption also speaks for it."""
        text = html.escape(caption)
        self._body.append(
            f'<figure role="img" aria-label="{text}">{_inline_svg(figure, len(self._body))}'
            f"<figcaption>{text}</figcaption></figure>"
        )

    def text(self) -> str:
        """Return the whole page as HTML."""
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{self._title}</title><style>{_STYLE}</style></head>"
            f"<body>{''.join(self._body)}</body></html>\n"
        )

    def save(self, path: Path) -> None:
        """Write the page, atomically."""
        with whole_file(path) as temporary:
            temporary.write_text(self.text(), encoding="utf-8")


def counted(n: int, noun: str) -> str:
    """Say how many there are: ``1 listener``, ``1,465 listeners``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _is_long(text: str) -> bool:
    return len(text) > _WIDE_TEXT and text not in _TONES


def _cell(text: str, is_in_text_column: bool) -> str:
    tone = _TONES.get(text, "text" if is_in_text_column else "")
    escaped = html.escape(text)
    return f'<td class="{tone}">{escaped}</td>' if tone else f"<td>{escaped}</td>"


def _inline_svg(figure: "Figure", number: int) -> str:
    """Return the figure's <svg> element; ids are made unique, since they are global to a page."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    # Without a salt matplotlib draws random ids, and no page would be the same twice.
    with rc_context({"svg.hashsalt": "needledrop"}):
        figure.savefig(
            buffer, format="svg", bbox_inches="tight", metadata=dict.fromkeys(_SVG_METADATA)
        )
    text = buffer.getvalue()
    svg = text[text.index("<svg") :]
    prefix = f"f{number}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", svg)
