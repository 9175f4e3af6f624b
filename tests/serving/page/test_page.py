"""The page in a real browser, which may speak to the server and to nobody else."""

import re

import pytest
from playwright.sync_api import Error, expect

from tests.serving.page.browser import chromium, visit
from tests.serving.page.world import CLIP, HARMFUL, KEY
from tests.serving.world import Server, wav_bytes, waveform

pytestmark = pytest.mark.engines

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def seen(page_world):
    return page_world[2]


def clip(content: bytes = CLIP, name: str = "mine.wav") -> dict:
    return {"name": name, "mimeType": "audio/wav", "buffer": content}


def opened(context, server: Server):
    page = context.new_page()
    page.goto(f"{server.url}/")
    return page


def test_a_dropped_clip_shows_songs_listeners_and_its_place(browser, seen):
    with visit(browser, seen.url) as context:
        page = opened(context, seen)
        expect(page.locator("#state")).to_have_text("40 songs, 30 listeners.")
        expect(page.locator("#map-part")).to_be_visible()
        before = page.locator("#map").screenshot()
        transfer = page.evaluate_handle(
            """bytes => {
              const transfer = new DataTransfer();
              transfer.items.add(new File([new Uint8Array(bytes)], "dropped.wav"));
              return transfer;
            }""",
            list(CLIP),
        )
        page.dispatch_event("#record", "drop", {"dataTransfer": transfer})
        expect(page.locator("#answer-title")).to_have_text("You dropped “dropped.wav”")
        expect(page.locator("#songs li")).to_have_count(12)
        expect(page.locator("#listeners li")).to_have_count(10)
        expect(page.locator("#songs .score").first).to_have_text(re.compile(r"\d+ %"))
        expect(page.locator("#own")).to_be_visible()
        expect(page.locator("#status")).to_have_text("")
        assert page.evaluate("document.activeElement.id") == "answer"
        assert page.locator("#map").screenshot() != before


def test_harmful_titles_are_text(browser, seen):
    with visit(browser, seen.url) as context:
        page = opened(context, seen)
        page.set_input_files("#file", clip())
        expect(page.locator("#songs button", has_text=HARMFUL).first).to_be_visible()
        assert page.title() == "needledrop"
        assert page.locator("#songs img, #songs script").count() == 0
        page.fill("#user-id", HARMFUL)
        page.press("#user-id", "Enter")
        expect(page.locator("#answer-title")).to_have_text(f"For {HARMFUL}")
        expect(page.locator("#answer-note")).to_contain_text("most listeners would play")
        assert page.title() == "needledrop"


def test_a_broken_file_shows_the_servers_sentence_and_the_next_clip_clears_it(browser, seen):
    with visit(browser, seen.url) as context:
        page = opened(context, seen)
        page.set_input_files("#file", clip(b"no sound at all" * 100, "letter.mp3"))
        expect(page.get_by_role("alert")).to_contain_text("That didn’t work.")
        sentence = page.get_by_role("alert").text_content()
        assert "xpected" in sentence
        assert "instances" not in sentence
        expect(page.locator("#answer")).to_be_hidden()
        expect(page.locator("#own")).to_be_hidden()
        page.set_input_files("#file", clip())
        expect(page.locator("#songs li")).to_have_count(12)
        expect(page.get_by_role("alert")).to_be_hidden()
        page.locator("#songs li").last.scroll_into_view_if_needed()
        page.set_input_files("#file", clip(b"", "empty.wav"))
        expect(page.get_by_role("alert")).to_be_in_viewport()


@pytest.mark.parametrize(
    "harm",
    [
        "fetch('http://127.0.0.1:1/').catch(() => 0)",
        "new Promise(done => document.body.append(Object.assign(new Image(),"
        " {src: 'http://127.0.0.1:1/pixel.png', onerror: done})))",
    ],
    ids=["fetch", "picture"],
)
def test_a_look_elsewhere_is_stopped_by_the_policy_and_noticed_by_these_tests(browser, seen, harm):
    def look() -> None:
        with visit(browser, seen.url) as context:
            page = opened(context, seen)
            with page.expect_console_message(lambda said: "Content Security" in said.text):
                page.evaluate(f"() => {{ {harm}; }}")

    with pytest.raises(AssertionError, match="Content Security"):
        look()


def test_text_can_not_be_turned_into_elements(browser, seen):
    with visit(browser, seen.url) as context, pytest.raises(Error, match="TrustedHTML"):
        opened(context, seen).evaluate("() => { document.body.innerHTML = '<b>bold</b>'; }")


def test_a_listener_is_told_what_and_why(browser, seen):
    with visit(browser, seen.url) as context:
        page = opened(context, seen)
        page.get_by_label("Or look a listener up").fill("user05")
        page.get_by_role("button", name="Recommend").click()
        expect(page.locator("#answer-title")).to_have_text("For user05")
        expect(page.locator("#songs li")).to_have_count(12)
        expect(page.locator("#songs")).to_contain_text("because of “")
        expect(page.locator("#listeners-part")).to_be_hidden()


def test_a_song_is_asked_about_and_played_by_keyboard_alone(browser, seen):
    with visit(browser, seen.url) as context:
        page = opened(context, seen)
        expect(page.locator("#map-part")).to_be_visible()
        page.locator("#map").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#tip")).to_be_visible()
        name = page.locator("#map-said").text_content()
        page.keyboard.press("Enter")
        expect(page.locator("#answer-title")).to_have_text(name)
        expect(page.locator("#listeners li")).to_have_count(10)
        page.set_input_files("#file", clip())
        expect(page.locator("#songs-title")).to_have_text("It sounds like")
        play = page.locator(".play").first
        expect(play).to_have_attribute("aria-label", re.compile("^Play .+"))
        play.focus()
        page.keyboard.press("Enter")
        expect(play).to_have_attribute("aria-pressed", "true")
        expect(page.locator("body")).to_have_class(re.compile("playing"))
        page.keyboard.press("Enter")
        expect(play).to_have_attribute("aria-pressed", "false")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scroll_and_text_has_contrast(browser, seen, scheme):
    with visit(browser, seen.url, color_scheme=scheme, **PHONE) as context:
        page = opened(context, seen)
        page.set_input_files("#file", clip(name="a-very-long-name-without-any-break" * 6 + ".wav"))
        expect(page.locator("#songs li")).to_have_count(12)
        for width in (320, 375, 412):
            page.set_viewport_size({"width": width, "height": 740})
            # Also what is clipped may not be wider than the card that it lies in.
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.locator(".arm").evaluate(
                "arm => arm.getBoundingClientRect().right"
                " <= arm.closest('section').getBoundingClientRect().right"
            )
        colours = {
            name: page.evaluate(
                "name => getComputedStyle(document.documentElement).getPropertyValue(name)", name
            )
            for name in ("--ground", "--sheet", "--ink", "--quiet", "--warm", "--on-warm")
        }
        for text, ground in (
            ("--ink", "--ground"),
            ("--ink", "--sheet"),
            ("--quiet", "--ground"),
            ("--quiet", "--sheet"),
            ("--warm", "--sheet"),
            ("--on-warm", "--warm"),
        ):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        nameless = page.locator("button, input").evaluate_all(
            "all => all.filter(one => !one.textContent.trim() && !one.labels?.length"
            " && !one.ariaLabel).length"
        )
        assert nameless == 0


def test_a_long_file_is_heard_in_its_middle(browser, seen):
    with visit(browser, seen.url) as context:
        page = opened(context, seen)
        long = wav_bytes(waveform(125, seed=2), sample_bytes=1)
        page.set_input_files("#file", clip(long))
        expect(page.locator("#answer-note")).to_contain_text(
            "its middle 30 seconds were heard", timeout=30_000
        )
        expect(page.locator("#songs li")).to_have_count(12)


def test_a_predictor_alone_shows_the_nearest_songs(browser, server):
    with visit(browser, server.url) as context:
        page = opened(context, server)
        expect(page.locator("#state")).to_have_text(
            "Hears clips, and finds the nearest of 40 songs."
        )
        page.set_input_files("#file", clip())
        expect(page.locator("#songs li")).to_have_count(12)
        expect(page.locator("#songs .name").first).to_have_text(re.compile("^SO1"))
        for part in ("#map-part", "#listener", "#listeners-part"):
            expect(page.locator(part)).to_be_hidden()
        page.route("**/v1/**", lambda route: route.abort())
        page.set_input_files("#file", clip())
        expect(page.get_by_role("alert")).to_contain_text("The server doesn’t answer.")


def test_a_server_with_keys_asks_for_one(browser, guarded_world):
    _, _, server = guarded_world
    with visit(browser, server.url) as context:
        page = opened(context, server)
        field = page.get_by_label("This server asks for a key")
        field.fill("a-wrong-key-0123456789")
        field.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("This key doesn’t open the server.")
        field.fill(KEY)
        field.press("Enter")
        expect(page.locator("#map-part")).to_be_visible()
        expect(field).to_be_hidden()
        page.set_input_files("#file", clip())
        expect(page.locator("#songs li")).to_have_count(12)
        page.locator(".play").first.click()
        expect(page.locator(".play").first).to_have_attribute("aria-pressed", "true")
        assert KEY not in page.content()
    assert KEY not in server.log.read_text()


def contrast(one: str, other: str) -> float:
    """WCAG 2's ratio of two colours like #rrggbb."""

    def luminance(colour: str) -> float:
        channels = [int(colour.strip()[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
