"""The artists at both ends of a factor."""

import numpy as np
import pytest

from needledrop.errors import ShapeMismatch
from needledrop.looking.factor_ends import factor_ends


def brute_force(factors, artists, factor, min_songs):
    """Means by a loop over the definition: [(artist, mean)] from low to high."""
    songs_of = {}
    for row, artist in enumerate(artists):
        if artist is not None:
            songs_of.setdefault(artist, []).append(float(factors[row, factor]))
    means = {a: sum(of) / len(of) for a, of in songs_of.items() if len(of) >= min_songs}
    return sorted(means.items(), key=lambda pair: pair[1])


def test_ends_equal_a_loop_over_the_definition():
    generator = np.random.default_rng(0)
    factors = generator.standard_normal((200, 6), dtype=np.float32)
    artists = [f"AR{n}" if n < 30 else None for n in generator.integers(0, 33, 200)]
    for factor, ends in enumerate(factor_ends(factors, artists, n_artists=4, min_songs=5)):
        expected = brute_force(factors, artists, factor, 5)
        for got, wanted in ((ends.negative, expected[:4]), (ends.positive, expected[::-1][:4])):
            assert [one.artist for one in got] == [artist for artist, _ in wanted]
            assert [one.mean for one in got] == pytest.approx([mean for _, mean in wanted])
        assert all(one.n_songs == artists.count(one.artist) for one in ends.negative)


def test_planted_artists_are_at_their_ends_and_one_lucky_song_is_at_none():
    artists = ["low"] * 3 + ["middle"] * 6 + ["high"] * 3 + ["lucky"]
    factors = np.array([[-2.0]] * 3 + [[0.1]] * 6 + [[2.0]] * 3 + [[99.0]], dtype=np.float32)
    (ends,) = factor_ends(factors, artists, n_artists=2)
    assert [one.artist for one in ends.negative] == ["low"]
    assert [one.artist for one in ends.positive] == ["high"]


def test_too_few_artists_have_no_ends():
    (ends,) = factor_ends(np.ones((4, 1), np.float32), ["one"] * 3 + [None])
    assert ends.negative == ends.positive == ()
    assert factor_ends(np.empty((0, 2), np.float32), [])[0].positive == ()


def test_artists_of_other_songs_are_refused():
    with pytest.raises(ShapeMismatch, match="expected 3 songs' artists, got 2"):
        factor_ends(np.ones((3, 1), np.float32), ["a", "b"])
