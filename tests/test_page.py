"""A page is one file that fetches nothing, escapes everything, and is the same each time."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure

from needledrop.page import Page

ROOT = Path(__file__).parents[1]
HOSTILE = "<script>alert('\"&amp;')</script>"

_VOID = {"meta", "br", "hr", "img", "link", "input"}


class Elements(HTMLParser):
    """What a browser makes of a page; fails where an element isn't closed by its own end tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def drawing() -> Figure:
    """A figure with clip paths, markers and text: what has ids and references to them."""
    figure = Figure(figsize=(4, 2))
    left, right = figure.subplots(1, 2)
    left.plot([1, 2, 3], [3, 1, 2], marker="o")
    left.set(xlabel="epoch", ylabel="loss < 1 & falling")
    right.scatter([1, 2, 3], [1, 1, 2])
    right.fill_between([1, 2, 3], [0, 0, 1], [1, 2, 2], alpha=0.3)
    return figure


def report() -> Page:
    page = Page("Evaluation", lead="1,881 songs")
    page.heading("Models")
    page.sentence("How well each model ranks.")
    page.table(["model", "mAP@500"], [["cnn", 0.231], ["random", "0.101"]])
    page.plot(drawing(), "One.")
    page.plot(drawing(), "The same once more.")
    return page


def test_every_text_is_escaped():
    page = Page(HOSTILE, lead=HOSTILE)
    page.heading(HOSTILE)
    page.sentence(HOSTILE)
    page.table([HOSTILE], [[HOSTILE]])
    page.plot(drawing(), HOSTILE)
    elements = Elements(page.text())
    assert elements.named("script") == []
    [title, *_] = elements.texts
    assert title == HOSTILE
    assert elements.texts.count(HOSTILE) == 8  # title, h1, lead, h2, p, th, td, figcaption
    [figure] = elements.named("figure")
    assert figure["aria-label"] == HOSTILE
    assert "loss < 1 & falling" in page.text().replace("&lt;", "<").replace("&amp;", "&")


def test_nothing_is_fetched():
    page = report()
    elements = Elements(page.text())
    for tag in ("script", "link", "img", "iframe", "object", "embed"):
        assert elements.named(tag) == []
    # Two names of XML vocabularies, which no browser looks up.
    assert set(re.findall(r"\w+://[^\"'\s)<>]+", page.text())) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "@import" not in page.text()
    for reference in re.findall(r"url\(([^)]*)\)", page.text()):
        assert reference.startswith("#")


def test_ids_are_unique_and_every_reference_has_its_target():
    text = report().text()
    ids = [attributes["id"] for _, attributes in Elements(text).elements if attributes.get("id")]
    assert len(ids) > 20
    assert len(ids) == len(set(ids))
    targets = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
    assert len(targets) > 10
    assert {one or other for one, other in targets} <= set(ids)


def test_a_second_figure_refers_to_its_own_parts():
    figures = report().text().split("<figure ")[1:]
    assert len(figures) == 2
    for figure in figures:
        ids = set(re.findall(r'\bid="([^"]+)"', figure))
        assert {a or b for a, b in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', figure)} <= ids


def test_the_same_page_is_the_same_bytes():
    salt = rcParams["svg.hashsalt"]
    assert report().text() == report().text()
    assert rcParams["svg.hashsalt"] == salt


def test_another_process_makes_the_same_bytes():
    program = (
        "import sys; from tests.test_page import report; "
        "sys.stdout.buffer.write(report().text().encode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == report().text().encode()


@pytest.mark.parametrize(
    ("value", "tone"),
    [
        ("passed", "good"),
        ("promoted", "good"),
        ("failed", "bad"),
        ("not promoted", "bad"),
        ("Passed", None),
        ("failed twice", None),
        (0.25, None),
        (None, None),
        ("x" * 28, None),
        ("x" * 29, "text"),
    ],
)
def test_a_cell_has_the_tone_of_what_it_says(value, tone):
    page = Page("Checks")
    page.table(["result"], [[value]])
    [cell] = Elements(page.text()).named("td")
    assert cell.get("class") == tone
    assert str(value) in Elements(page.text()).texts


def test_a_table_has_its_cells_in_order_and_may_be_empty():
    page = Page("Models")
    page.table(["model", "AUC"], (row for row in [["cnn", 0.7], ["random", 0.5]]))
    page.table(["song", "file"], [])
    elements = Elements(page.text())
    assert elements.texts[2:] == ["model", "AUC", "cnn", "0.7", "random", "0.5", "song", "file"]
    assert len(elements.named("tr")) == 4


def test_a_page_is_saved_whole_in_utf_8(tmp_path):
    page = Page("Évaluation – 音楽")
    page.save(tmp_path / "new" / "page.html")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]
    assert (tmp_path / "new" / "page.html").read_bytes() == page.text().encode("utf-8")
    assert '<meta charset="utf-8">' in page.text()
