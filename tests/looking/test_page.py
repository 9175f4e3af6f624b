"""The page in a real browser, from the disk, with nothing but its clips beside it."""

import re

import pytest
from playwright.sync_api import expect

from tests.looking.world import HARMFUL, LONG, RIGHT_TO_LEFT, TITLES, title_of
from tests.serving.page.browser import chromium

pytestmark = pytest.mark.engines

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser, looked):
    """Opens the page; at the end nothing but it and its clips was asked for, nothing complained."""
    contexts, asked, complaints = [], [], []

    def opened(path=looked, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        context.on("request", lambda request: asked.append(request.url))
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        context.on("console", lambda said: complaints.append(said.text))
        page = context.new_page()
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    folder = looked.parents[1].as_uri()
    assert asked
    assert [
        url for url in asked if not url.startswith((f"{folder}/pages/", f"{folder}/data/"))
    ] == []
    assert [one for one in complaints if "ERR_FILE_NOT_FOUND" not in one] == []


def place_on_screen(page, song: int) -> tuple[float, float]:
    """Where the whole map shows a song: its middle is that of the canvas."""
    box = page.locator("#map").bounding_box()
    x, y = page.evaluate(
        "song => { const { songs } = JSON.parse(document.getElementById('data').textContent);"
        " return [songs.x[song], songs.y[song]]; }",
        song,
    )
    span = (min(box["width"], box["height"]) - 44) / 2
    return (
        box["x"] + box["width"] / 2 + x / 10_000 * span,
        box["y"] + box["height"] / 2 - y / 10_000 * span,
    )


def test_a_dot_is_named_shown_and_heard(visit):
    page = visit()
    page.locator("#map").scroll_into_view_if_needed()
    x, y = place_on_screen(page, 5)
    expect(page.locator("#tip")).to_be_hidden()
    page.mouse.move(x, y)
    expect(page.locator("#tip")).to_be_visible()
    name = page.locator("#tip").text_content()
    page.mouse.click(x, y)
    title = page.locator("#song-title").text_content()
    assert name == f"{title} — Artist {int(title.removeprefix('Song ')) % 4}"
    expect(page.locator("#by-audio li")).to_have_count(8)
    expect(page.locator("#sound")).to_have_js_property("readyState", 4)
    expect(page.locator("#sound")).to_have_js_property("paused", False)
    assert page.locator("#sound").evaluate("one => one.duration") == pytest.approx(3.2, abs=0.1)


def test_both_lists_lead_on(visit):
    page = visit()
    page.locator("#most-played").click()
    expect(page.locator("#by-usage li")).to_have_count(8)
    expect(page.locator("#lists-said")).to_contain_text("of 8 are in both lists")
    first = page.locator("#by-usage .pick").first
    wanted = first.locator("strong").text_content()
    first.click()
    expect(page.locator("#song-title")).to_have_text(wanted)


def test_a_held_out_song_has_both_lists_and_says_what_it_is(visit):
    page = visit()
    page.get_by_role("button", name="a held-out song").click()
    expect(page.locator("#song-facts")).to_contain_text("held out: neither factors nor network")
    for one in ("#by-usage li", "#by-audio li"):
        expect(page.locator(one)).to_have_count(8)


def test_a_song_that_nobody_has_played_has_neighbours_by_sound_alone(visit):
    page = visit()
    page.get_by_label("Find a song").fill("song 39")
    page.keyboard.press("Enter")
    expect(page.locator("#song-title")).to_have_text("Song 39")
    expect(page.locator("#usage-said")).to_have_text("Nobody has played it.")
    expect(page.locator("#by-usage li")).to_have_count(0)
    expect(page.locator("#by-audio li")).to_have_count(8)


def test_each_colour_has_its_legend_and_paints_another_map(visit):
    page = visit()
    seen = set()
    for name, first in (
        ("artist", "Artist 2 (7)"),
        ("popularity", re.compile("listeners")),
        ("part", "training song (18)"),
        ("tag", re.compile(r"^loud \(1\d\)")),
    ):
        # The radio button lies under its label, which is what people press.
        page.locator("#colours label", has_text=name).click()
        expect(page.locator("#legend button").first).to_have_text(first)
        page.evaluate("new Promise(requestAnimationFrame)")
        seen.add(page.locator("#map").screenshot())
    assert len(seen) == 4
    page.locator("#legend button").first.click()
    expect(page.locator("#legend button").first).to_have_attribute("aria-pressed", "true")


def test_colours_are_on_the_canvas(visit):
    page = visit()
    page.locator("#colours label", has_text="artist").click()
    page.evaluate("new Promise(requestAnimationFrame)")
    saturated = page.evaluate(
        """() => {
          const canvas = document.getElementById("map");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let n = 0;
          for (let at = 0; at < data.length; at += 4) {
            const colour = [data[at], data[at + 1], data[at + 2]];
            if (data[at + 3] > 200 && Math.max(...colour) - Math.min(...colour) > 80) n += 1;
          }
          return n;
        }"""
    )
    assert saturated > 300


def test_harmful_titles_are_text(visit):
    page = visit()
    for number in TITLES:
        page.get_by_label("Find a song").fill(title_of(number)[:60].strip())
        page.keyboard.press("Enter")
        shown = LONG[:299] + "…" if number == 2 else title_of(number)
        assert page.locator("#song-title bdi").text_content() == shown
    assert page.title() == "needledrop: what a version has learned"
    assert page.locator("#matches img, #matches b, body > script:not([type])").count() == 0
    assert page.locator("#song-title bdi").count() == 1
    assert HARMFUL not in page.content()
    page.get_by_label("Find a song").fill(RIGHT_TO_LEFT)
    assert (
        page.locator("#matches strong").evaluate("one => getComputedStyle(one).direction") == "rtl"
    )


def test_a_name_from_right_to_left_does_not_turn_a_songs_other_facts_around(visit):
    page = visit()
    page.get_by_label("Find a song").fill("song 5")
    page.keyboard.press("Enter")
    facts = page.locator("#song-facts")
    names = facts.locator("bdi").all_text_contents()
    assert names
    assert not [name for name in names if " · " in name or "listener" in name]
    own_text = "one => [...one.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join('')"
    assert re.search(r"\d listeners? · (a training song|held out)", facts.evaluate(own_text))


def test_search_finds_titles_artists_and_tags(visit):
    page = visit()
    field = page.get_by_label("Find a song")
    field.fill("SONG 07")
    expect(page.locator("#found")).to_have_text("1 song")
    field.fill("artist 1")
    expect(page.locator("#found")).to_have_text(re.compile(r"^\d songs$"))
    field.fill("loud")
    expect(page.locator("#found")).to_have_text(re.compile(r"^1\d songs$"))
    field.fill("no such thing")
    expect(page.locator("#found")).to_have_text("No song is called so.")
    field.fill("")
    expect(page.locator("#matches li")).to_have_count(0)


def test_the_keyboard_alone_walks_zooms_and_chooses(visit):
    page = visit()
    page.locator("#map").focus()
    for key in ("ArrowRight", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    expect(page.locator("#tip")).to_be_visible()
    said = page.locator("#map-said").text_content()
    page.keyboard.press("Enter")
    assert said.startswith(page.locator("#song-title").text_content())
    page.keyboard.press("+")
    expect(page.locator("#map")).to_have_class("closer")
    page.keyboard.press("0")
    expect(page.locator("#map")).not_to_have_class("closer")


def test_zoom_keeps_what_is_under_the_pointer_and_dragging_moves(visit):
    page = visit()
    page.locator("#map").scroll_into_view_if_needed()
    x, y = place_on_screen(page, 7)
    page.mouse.move(x, y)
    name = page.locator("#tip").text_content()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    expect(page.locator("#map")).to_have_class("closer")
    page.mouse.move(x + 1, y)
    expect(page.locator("#tip")).to_have_text(name)
    before = page.locator("#song-title").text_content()
    page.mouse.down()
    page.mouse.move(x + 41, y + 20, steps=4)
    page.mouse.up()
    assert page.locator("#song-title").text_content() == before, "a drag is no click"
    page.mouse.move(x + 41, y + 20)
    expect(page.locator("#tip")).to_have_text(name)


def test_a_factors_artist_is_found_on_the_map(visit):
    page = visit()
    expect(page.locator(".factor")).to_have_count(6)
    button = page.locator(".factor .pick").first
    artist = button.locator("strong").text_content()
    button.click()
    expect(page.get_by_label("Find a song")).to_have_value(artist)
    expect(page.locator("#matches li").first).to_contain_text(artist)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scroll_and_a_tap_chooses(visit, scheme):
    page = visit(color_scheme=scheme, **PHONE)
    page.get_by_label("Find a song").fill("endless")
    page.keyboard.press("Enter")
    for width in (320, 360, 412):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_label("Find a song").fill("")
    page.locator("#map").scroll_into_view_if_needed()
    page.touchscreen.tap(*place_on_screen(page, 9))
    expect(page.locator("#song-title")).not_to_have_text(re.compile("^endless"))
    expect(page.locator("#chosen")).to_contain_text(page.locator("#song-title").text_content())
    page.locator("#chosen").click()
    expect(page.locator("#song-title")).to_be_in_viewport()
    nameless = page.locator("button, input, canvas").evaluate_all(
        "all => all.filter(one => !one.textContent.trim() && !one.labels?.length"
        " && !one.ariaLabel).length"
    )
    assert nameless == 0


def test_two_fingers_zoom(visit):
    page = visit(**PHONE)
    page.locator("#map").scroll_into_view_if_needed()
    box = page.locator("#map").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *places: float) -> None:
        points = [{"x": x + place, "y": y, "id": at} for at, place in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    expect(page.locator("#map")).not_to_have_class("closer")
    fingers("touchStart", -20, 20)
    for apart in (30, 45, 60, 80):
        fingers("touchMove", -apart, apart)
    fingers("touchEnd")
    expect(page.locator("#map")).to_have_class("closer")
    page.get_by_role("button", name="Show the whole map").click()
    expect(page.locator("#map")).not_to_have_class("closer")


def test_a_clip_that_was_moved_away_is_said(visit):
    page = visit()
    page.locator("#sound").evaluate(
        "one => { one.src = '../data/audio/gone.wav'; one.play().catch(() => 0); }"
    )
    expect(page.locator("#sound-said")).to_contain_text("isn’t where it was")
