"""The parsers: what is written in a format is read back, anything else is told with a reason."""

import json
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from needledrop.datasets import mismatches, song_tracks, tags_json, unique_tracks
from needledrop.datasets.limits import ImportLimits
from needledrop.datasets.lines import decoded, usable_text
from needledrop.errors import ConfigRejected

LIMITS = ImportLimits()
ids = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=16, max_size=16)
songs, tracks = ids.map("SO{}".format), ids.map("TR{}".format)
texts = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))
names = texts.filter(lambda text: "<SEP>" not in text)
scores = st.integers(0, 100)


@given(songs, tracks, texts, st.sampled_from(["ERROR: ", "ERROR:", "", "< ERROR: ", "  "]))
def test_mismatches_are_read_whatever_stands_around(song, track, text, start):
    assert mismatches.parse(f"{start}<{song} {track}> {text}  !=  {text}") == (song, track)


def test_the_published_example_of_a_mismatch():
    line = (
        "ERROR: <SOUMNSI12AB0182807 TRMMGKQ128F9325E10> Digital Underground - The Way We Swing  "
        "!=  Linkwood - Whats up with the Underground"
    )
    assert mismatches.parse(line) == ("SOUMNSI12AB0182807", "TRMMGKQ128F9325E10")


@given(tracks, songs, names, texts)
def test_tracks_are_read_back(track, song, artist, title):
    line = f"{track}<SEP>{song}<SEP>{artist}<SEP>{title}"
    assert unique_tracks.parse(line) == (track, song, artist, title)


@given(songs, st.lists(tracks, max_size=5), st.sampled_from(["", "\t", " "]))
def test_tracks_of_a_song_are_read_back(song, of_song, end):
    assert song_tracks.parse("\t".join([song, *of_song]) + end) == (song, tuple(of_song))


@given(tracks, st.lists(st.tuples(st.text("abc ä", min_size=1).filter(str.strip), scores)))
def test_json_is_read_back(track, tags):
    content = {"track_id": track, "tags": [[tag, str(score)] for tag, score in tags]}
    rows = tags_json.parse(json.dumps(content), LIMITS)
    assert rows == [(track, tag.strip(), float(score)) for tag, score in tags]


@given(st.text())
@example("<SEP><SEP><SEP>")
@example("\t")
@example("<SO TR>")
@example('{"track_id": "TR0000000000000000", "tags": [["a", true]]}')
@example('{"track_id": "TR0000000000000000", "tags": [["a", 1e999]]}')
@example('{"track_id": "TR0000000000000000", "tags": {"a": 1}}')
@example('{"track_id": "TR0000000000000000", "tags": [["a", ' + "9" * 9999 + "]]}")
@example("[" * 99_999)
def test_anything_else_is_a_value_error_in_one_line(text):
    parsers = (mismatches.parse, unique_tracks.parse, song_tracks.parse)
    for parse in (*parsers, lambda one: tags_json.parse(one, LIMITS)):
        reason = "fine"
        try:
            parse(text)
        except ValueError as error:
            reason = str(error)
        assert reason.strip()
        assert "\n" not in reason


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(tracks, json_values)
def test_json_of_any_shape_is_a_row_or_a_value_error(track, value):
    for content in (value, {"track_id": track, "tags": value}, {"track_id": value, "tags": []}):
        with suppress(ValueError):
            for name, tag, score in tags_json.parse(json.dumps(content), LIMITS):
                assert name.startswith("TR")
                assert tag
                assert 0 <= score <= 100


@given(st.binary())
@example("Björk".encode("latin-1"))
def test_any_bytes_are_text(data):
    text, is_latin = decoded(data)
    assert text.encode("latin-1" if is_latin else "utf-8") == data


@given(st.text())
def test_usable_texts_are_those_of_the_data_contract(text):
    usable = usable_text(text, LIMITS)
    assert usable is None or (usable == usable.strip() and "\x00" not in usable and usable)


@pytest.mark.parametrize(
    "values",
    [{"max_rejected_share": 2.0}, {"max_json_bytes": 0}, {"max_unpacking_ratio": -1}],
    ids=str,
)
def test_limits_are_checked(values):
    with pytest.raises(ConfigRejected, match=next(iter(values))):
        ImportLimits(**values)
