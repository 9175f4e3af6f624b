"""The map for newcomers leads somewhere."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
MAP = TEXT.partition("## A newcomer's map")[2].partition("\n## ")[0]
ROOMS = TEXT.partition("## Rooms")[2].partition("\n## ")[0]


def test_every_place_on_the_map_is_there():
    places = re.findall(r"`([\w./-]+/[\w./-]*|[\w./-]+\.\w+)`", MAP)
    assert len(places) > 15
    # What begins with a slash is a page of the server.
    assert [one for one in places if one[0] != "/" and not (ROOT / one).exists()] == []


def test_no_wish_is_on_the_map_twice():
    wishes = [line.split("|")[1].strip() for line in MAP.splitlines() if line.startswith("| ")]
    assert len(wishes) == len(set(wishes))


def test_every_module_that_the_list_of_rooms_names_is_there():
    named = re.findall(r"(?<![\w/])[\w/]+\.py\b", ROOMS)
    rooms = ("needledrop", "components", "pipelines", "serving", "feature_repo")
    there = {path.name for room in rooms for path in (ROOT / room).rglob("*.py")}
    assert len(named) > 100
    assert [one for one in named if one.rpartition("/")[2] not in there] == []
