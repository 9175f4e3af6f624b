"""Which songs are looked at, what they are called, coloured by, and linked to."""

from pathlib import Path

import numpy as np
import pytest

from needledrop.errors import ConfigRejected, InputError
from needledrop.looking.choosing import chosen_rows
from needledrop.looking.clip_links import clip_links
from needledrop.looking.colourings import (
    coloured_by_artist,
    coloured_by_part,
    coloured_by_popularity,
    coloured_by_tag,
)
from needledrop.looking.data_folder import SongFacts


def test_named_popular_and_preferred_songs_are_chosen_and_the_draw_is_seeded():
    named = np.arange(1000) == 321
    popularity = np.arange(1000)
    preferred = np.arange(1000) % 10 == 1
    options = {"named": named, "popularity": popularity, "preferred": preferred}
    rows = chosen_rows(100, seed=1, **options)
    assert len(set(rows.tolist())) == 100
    assert rows.tolist() == sorted(rows.tolist())
    assert {321, *range(990, 1000)} <= set(rows.tolist())
    assert preferred[rows].sum() >= 50
    assert rows.tolist() == chosen_rows(100, seed=1, **options).tolist()
    assert rows.tolist() != chosen_rows(100, seed=2, **options).tolist()
    assert chosen_rows(1000, seed=1, **options).tolist() == list(range(1000))


def test_colours_by_tag_are_the_best_fitting_of_the_frequent_ones():
    tags = [("rare", "rock"), ("pop", "rock"), ("rock",), (), ("pop",)]
    tags += [(f"tag{n}",) for n in range(9) for _ in range(2)]
    colouring = coloured_by_tag(tags)
    assert len(colouring.classes) == 8
    named = [colouring.classes[one] if one >= 0 else "" for one in colouring.class_of[:5]]
    assert named == ["rock", "pop", "rock", "", "pop"]


def test_a_tag_that_fits_no_song_best_has_no_colour():
    colouring = coloured_by_tag([("loud", "odd"), ("loud", "odd"), ("quiet", "odd")])
    assert colouring.classes == ("loud", "quiet")
    assert colouring.class_of.tolist() == [0, 0, 1]


def test_artists_of_one_name_are_two_artists():
    colouring = coloured_by_artist(["b", "a", "b", None], ["Same", "Same", "Same", ""])
    assert colouring.classes == ("Same", "Same")
    assert colouring.class_of.tolist() == [0, 1, 0, -1]


def test_popularity_is_in_classes_that_tell_their_range():
    listeners = np.array([0, 1, 1, 1, 2, 3, 4, 1500, 9, 9])
    colouring = coloured_by_popularity(listeners)
    assert colouring.is_scale
    assert colouring.class_of[0] == -1
    for song, of in enumerate(colouring.class_of[1:].tolist(), start=1):
        low, *high = colouring.classes[of].removesuffix(" listeners").replace(",", "").split(" to ")
        assert int(low) <= listeners[song] <= int((high or [low])[0])
    assert coloured_by_popularity(np.zeros(3, np.int64)).classes == ()


def test_parts():
    parts = coloured_by_part(np.array([True, False, False]), np.array([True, True, False]))
    assert parts.class_of.tolist() == [0, 1, 2]


def test_a_folder_without_tracks_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected one of tracks\.csv"):
        SongFacts.read(tmp_path)
    with pytest.raises(InputError, match="expected a folder with tracks"):
        SongFacts.read(tmp_path / "gone")


def test_tracks_alone_are_enough(tmp_path):
    (tmp_path / "tracks.csv").write_text("song_id\nSO1\n")
    facts = SongFacts.read(tmp_path)
    assert not facts.title
    assert not facts.listeners
    assert not facts.clips


def test_links_are_relative_encoded_and_never_leave_the_folder(tmp_path):
    clips = tmp_path / "audio"
    (clips / "a b").mkdir(parents=True)
    outside = tmp_path / "secret.wav"
    outside.write_bytes(b"x")
    inside = clips / "a b" / "100%?#é.wav"
    inside.write_bytes(b"x")
    (clips / "way_out.wav").symlink_to(outside)
    links = clip_links(
        {
            "fine": inside,
            "symlink": clips / "way_out.wav",
            "dots": clips / ".." / "secret.wav",
            "gone": clips / "gone.wav",
            "folder": clips / "a b",
        },
        clips,
        tmp_path / "pages" / "deep" / "look.html",
    )
    assert links == {"fine": "../../audio/a%20b/100%25%3F%23%C3%A9.wav"}


def test_clips_beside_the_page_and_a_folder_that_is_not_there(tmp_path):
    (tmp_path / "x.wav").write_bytes(b"x")
    page = tmp_path / "look.html"
    assert clip_links({"x": tmp_path / "x.wav"}, tmp_path, page) == {"x": "./x.wav"}
    with pytest.raises(ConfigRejected, match="expected a folder of clips"):
        clip_links({}, Path("/no/such/folder"), page)
