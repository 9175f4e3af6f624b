"""Splits: disjoint, exhaustive, stable, and by artist where they say so."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from needledrop.errors import ArtifactBroken, ConfigRejected, SplitLeakage, TracksRejected
from needledrop.plays.split import PARTS, Split, SplitConfig, split_songs

SONGS = [f"SO{i:04}" for i in range(1000)]
ARTIST_OF = {song: f"AR{index % 97}" for index, song in enumerate(SONGS) if index % 10}
BY_ARTIST = SplitConfig("artist")


def part_of(split):
    return {song: part for part in PARTS for song in getattr(split, part).tolist()}


@st.composite
def catalogues(draw):
    """A catalogue (with audio for some songs, artists for some), and a part of it."""
    n_songs = draw(st.integers(60, 200))
    n_artists = draw(st.integers(20, 60))
    salt = draw(st.integers(0, 1000))
    songs = [f"S{salt}-{i}" for i in range(n_songs)]
    artist_of = {song: f"A{salt}-{i % n_artists}" for i, song in enumerate(songs) if i % 7}
    audible = {song for i, song in enumerate(songs) if i % draw(st.integers(2, 5))}
    smaller = songs[: draw(st.integers(40, n_songs))]
    kind = draw(st.sampled_from(["random", "artist"]))
    config = SplitConfig(kind, validation_share=0.3, test_share=0.3, seed=draw(st.integers(0, 99)))
    return songs, smaller, audible, artist_of, config


def split_or_assume(songs, **arguments):
    try:
        return split_songs(songs, **arguments)
    except ConfigRejected:
        assume(False)
        raise


@settings(max_examples=60, deadline=None)
@given(catalogues(), st.randoms(use_true_random=False))
def test_disjoint_exhaustive_stable_and_without_split_artists(catalogue, random):
    songs, smaller, audible, artist_of, config = catalogue
    arguments = {"audible": audible, "artist_of": artist_of, "config": config}
    split = split_or_assume(songs, **arguments)
    parts = part_of(split)
    assert sorted(parts) == sorted(songs)
    assert sum(len(getattr(split, part)) for part in PARTS) == len(songs)
    assert {*split.test, *split.validation} <= audible
    assert split.known.tolist() == sorted({*songs} - {*split.test, *split.left_out})
    # Neither the order of the songs nor repetitions matter.
    again = split_songs(random.sample(songs, len(songs)) + songs[:5], **arguments)
    assert part_of(again) == parts
    # Growing the catalogue moves no song.
    before = part_of(split_or_assume(smaller, **arguments))
    assert before == {song: parts[song] for song in smaller}
    if config.kind == "artist":
        for artist in set(artist_of.values()):
            of_artist = {parts[song] for song in songs if artist_of.get(song) == artist}
            assert len(of_artist - {"left_out"}) <= 1
            assert not ("left_out" in of_artist and "train" in of_artist)
    else:
        assert len(split.left_out) == 0
        assert all(parts[song] == "train" for song in set(songs) - audible)


def test_a_part_is_decided_by_the_documented_hash():
    split = split_songs(SONGS, audible=SONGS, config=SplitConfig(seed=7))
    for song, part in part_of(split).items():
        place = int(hashlib.sha256(f"7:song:{song}".encode()).hexdigest(), 16) / 2**256
        assert part == ("test" if place < 0.2 else "validation" if place < 0.3 else "train")
    assert len(split.test) == pytest.approx(200, abs=45)
    assert len(split.validation) == pytest.approx(100, abs=35)
    assert split.test.tolist() == sorted(split.test.tolist())


def test_another_seed_holds_out_other_songs_and_shares_nest():
    first = split_songs(SONGS, audible=SONGS)
    other = split_songs(SONGS, audible=SONGS, config=SplitConfig(seed=1))
    assert set(first.test) != set(other.test)
    wider = split_songs(SONGS, audible=SONGS, config=SplitConfig(test_share=0.4))
    assert set(first.test) < set(wider.test)
    more = split_songs(SONGS, audible=SONGS, config=SplitConfig(validation_share=0.5))
    assert set(first.test) == set(more.test)


def test_a_song_without_artist_stands_for_its_own_and_is_counted():
    split = split_songs(SONGS, audible=SONGS, artist_of=ARTIST_OF, config=BY_ARTIST)
    assert split.n_without_artist == 100
    random = split_songs(SONGS, audible=SONGS)
    lone = [song for song in SONGS if song not in ARTIST_OF]
    assert {part_of(split)[song] for song in lone} == {"train", "validation", "test"}
    assert random.n_without_artist == 0
    split.verify(ARTIST_OF)


def test_songs_without_audio_of_held_out_artists_are_left_out():
    artist_of = {song: f"AR{index % 50}" for index, song in enumerate(SONGS)}
    split = split_songs(SONGS, audible=SONGS[:500], artist_of=artist_of, config=BY_ARTIST)
    held_out = {artist_of[song] for song in [*split.test, *split.validation]}
    assert {artist_of[song] for song in split.left_out.tolist()} == held_out
    assert not held_out & {artist_of[song] for song in split.train.tolist()}
    split.verify(artist_of)


def test_songs_that_were_trained_on_stay_when_their_clip_arrives():
    first = split_songs(SONGS, audible=SONGS[:500])
    careless = split_songs(SONGS, audible=SONGS)
    assert set(first.train) & set(careless.test)
    careful = split_songs(SONGS, audible=SONGS, trained_before=first.train.tolist())
    assert not set(first.train) & {*careful.test, *careful.validation}
    assert set(first.test) <= set(careful.test)
    artists = {song: f"AR{index % 50}" for index, song in enumerate(SONGS)}
    kept = split_songs(
        SONGS, audible=SONGS, artist_of=artists, config=BY_ARTIST, trained_before=SONGS[:5]
    )
    assert {part_of(kept)[song] for song in SONGS if artists[song] in ("AR0", "AR4")} == {"train"}


def test_a_split_by_artist_needs_artists():
    for artist_of in (None, {}, {"other": "AR1"}):
        with pytest.raises(TracksRejected, match="add the column artist_id, or split by random"):
            split_songs(SONGS, audible=SONGS, artist_of=artist_of, config=BY_ARTIST)


@pytest.mark.parametrize(
    ("songs", "audible", "config", "advice"),
    [
        (SONGS, [], SplitConfig(), "got none out of 1000 songs with plays, 0 of them with audio"),
        (SONGS, SONGS[:2], SplitConfig(), "raise "),
        (SONGS, SONGS, SplitConfig(validation_share=1e-9), "raise validation_share"),
        (SONGS, SONGS, SplitConfig(test_share=1e-9), "raise test_share, take another split_seed"),
        (SONGS[:40], SONGS, SplitConfig("random", 1e-4, 0.9998), "lower test_share"),
        ([], SONGS, SplitConfig(), "got none out of 0 songs with plays"),
    ],
)
def test_an_empty_part_says_what_to_change(songs, audible, config, advice):
    with pytest.raises(ConfigRejected, match=r"split: expected at least one \w+ song") as refused:
        split_songs(songs, audible=audible, config=config)
    assert advice in str(refused.value)


@pytest.mark.parametrize(
    "setting",
    [
        {"kind": "temporal"},
        {"seed": 1.5},
        {"validation_share": 0},
        {"test_share": 0.0},
        {"test_share": 0.9},
        {"test_share": -0.1},
        {"validation_share": float("nan")},
    ],
)
def test_a_config_out_of_range_is_refused(setting):
    with pytest.raises(ConfigRejected, match=r"split.*: expected"):
        SplitConfig(**setting)


def split_of(kind="artist", **parts):
    arrays = {part: np.array(parts.get(part, []), dtype=np.str_) for part in PARTS}
    return Split(kind=kind, seed=0, **arrays)


def test_leakage_is_refused_by_name():
    with pytest.raises(SplitLeakage, match="got song SOA in train and test"):
        split_of(train=["SOA"], test=["SOA"]).verify()
    with pytest.raises(SplitLeakage, match="got song SOB in validation and left_out"):
        split_of(kind="random", validation=["SOB"], left_out=["SOB"]).verify()
    artist_of = {"SOA": "AR1", "SOB": "AR1"}
    with pytest.raises(SplitLeakage, match="got artist artist:AR1 in train and validation"):
        split_of(train=["SOA"], validation=["SOB"]).verify(artist_of)
    split_of(kind="random", train=["SOA"], validation=["SOB"]).verify(artist_of)
    split_of(test=["SOA"], left_out=["SOB"]).verify(artist_of)
    # A song that is called like an artist is not that artist.
    split_of(test=["SOA"], train=["AR1"]).verify(artist_of)


def test_a_split_survives_saving(tmp_path):
    split = split_songs(SONGS, audible=SONGS[:800], artist_of=ARTIST_OF, config=BY_ARTIST)
    split.save(tmp_path / "split.json")
    loaded = Split.load(tmp_path / "split.json")
    assert part_of(loaded) == part_of(split)
    assert (loaded.kind, loaded.seed, loaded.n_without_artist) == ("artist", 0, 100)
    assert len(loaded.left_out) > 0
    assert loaded.train.dtype.kind == "U"


def test_broken_artifacts_are_refused(tmp_path):
    with pytest.raises(ArtifactBroken):
        Split.load(tmp_path / "none.json")
    good = {"kind": "random", "seed": 0, "n_without_artist": 0} | {part: [] for part in PARTS}
    for broken in (
        [],
        {},
        good | {"train": None},
        good | {"train": [1, "a"]},
        good | {"kind": 1},
        good | {"test": "ab"},
    ):
        (tmp_path / "split.json").write_text(json.dumps(broken))
        with pytest.raises(ArtifactBroken):
            Split.load(tmp_path / "split.json")
    (tmp_path / "split.json").write_text(json.dumps(good | {"train": ["a"], "test": ["a"]}))
    with pytest.raises(SplitLeakage):
        Split.load(tmp_path / "split.json")
