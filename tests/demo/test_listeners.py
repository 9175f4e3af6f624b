"""Tastes: plays follow timbre, temporal structure and popularity, each on its own."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from needledrop.demo.listeners import (
    Activity,
    TasteWeights,
    listeners_from_songs,
    temporal_attributes,
    timbre_attributes,
)


def mean_auc(utility, play_counts):
    """The chance that a played song has more utility than one that wasn't, mean over listeners."""
    aucs = []
    for liking, counts in zip(utility, play_counts, strict=True):
        played, others = liking[counts > 0], liking[counts == 0]
        difference = played[:, None] - others[None, :]
        aucs.append(np.mean((difference > 0) + 0.5 * (difference == 0)))
    return float(np.mean(aucs))


@pytest.fixture(scope="module")
def songs(world):
    return [song for song in world.songs if song.has_plays]


@pytest.fixture(scope="module")
def released(world):
    return np.array([song.has_plays for song in world.songs])


def test_utility_explains_plays(world, released):
    listeners = world.listeners
    assert mean_auc(listeners.utility[:, released], listeners.play_counts[:, released]) > 0.92


@pytest.mark.parametrize("part", ["timbre_utility", "temporal_utility"])
def test_plays_follow_what_can_be_heard(world, released, part):
    listeners = world.listeners
    counts = listeners.play_counts[:, released]
    heard = getattr(listeners, part)[:, released]
    utility = listeners.utility[:, released]
    shuffled = np.random.default_rng(0).permutation(heard.shape[1])
    assert mean_auc(heard, counts) > 0.7
    assert mean_auc(heard[:, shuffled], counts) == pytest.approx(0.5, abs=0.03)
    # All else being known, a song's real sound or rhythm still tells more than another song's.
    assert mean_auc(utility - heard + heard[:, shuffled], counts) < mean_auc(utility, counts) - 0.1


def test_loyalty_matters_and_can_not_be_heard(world, released):
    listeners = world.listeners
    counts = listeners.play_counts[:, released]
    without = (listeners.utility - listeners.loyalty)[:, released]
    assert mean_auc(without, counts) < mean_auc(listeners.utility[:, released], counts)


def test_popularity_matters_and_can_not_be_heard(world, songs, released):
    n_listeners = np.count_nonzero(world.listeners.play_counts, axis=0)[released]
    popularity = np.array([song.popularity for song in songs])
    assert np.corrcoef(popularity, np.log(n_listeners))[0, 1] > 0.5
    weights = TasteWeights()
    audible = np.hstack([timbre_attributes(songs, weights), temporal_attributes(songs, weights)])
    design = np.column_stack([np.ones(len(songs)), audible])
    explained = design @ np.linalg.lstsq(design, popularity, rcond=None)[0]
    # 11 free directions explain 11 / 228 of pure noise.
    assert np.var(explained) / np.var(popularity) < 3 * 11 / len(songs)


def test_popularity_is_a_power_law(world):
    popularity = np.sort([song.popularity for song in world.songs])[::-1]
    rank = np.arange(1, len(popularity) + 1)
    slope = np.polyfit(np.log(rank), popularity, 1)[0]
    assert slope == pytest.approx(-0.8, abs=1e-6)


def test_timbre_and_time_are_told_apart_by_no_table(world):
    """Palettes, grooves and figures meet evenly, so that none of them gives away another."""
    cells = Counter(
        (artist.style.palette, artist.style.groove, artist.style.figure) for artist in world.artists
    )
    assert len(cells) == len(world.artists) == 40
    assert set(cells) <= set(product(range(5), range(3), range(3)))


def test_activity_is_heavy_tailed_with_a_floor(world):
    n_songs_played = np.count_nonzero(world.listeners.play_counts, axis=1)
    assert 10 <= n_songs_played.min() <= 12
    assert 23 <= np.median(n_songs_played) <= 31
    assert n_songs_played.max() > 4 * np.median(n_songs_played)


def test_most_songs_are_played_once_or_twice_and_some_often(world):
    counts = world.listeners.play_counts[world.listeners.play_counts > 0]
    assert counts.min() == 1
    assert np.median(counts) <= 3
    assert counts.max() > 50


def test_new_releases_are_liked_but_not_played(world, released):
    assert (~released).sum() == 12
    assert not world.listeners.play_counts[:, ~released].any()
    assert world.listeners.utility[:, ~released].std() > 1.0


def test_listeners_without_tastes_play_what_is_popular(world):
    deaf = TasteWeights(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    listeners = listeners_from_songs(
        world.songs, world.artists, 400, np.random.default_rng(0),
        weights=deaf, activity=Activity(fewest=20, median_above=1.0),
    )  # fmt: skip
    assert not listeners.timbre_utility.any()
    assert not listeners.temporal_utility.any()
    n_listeners = np.count_nonzero(listeners.play_counts, axis=0)
    has_plays = np.array([song.has_plays for song in world.songs])
    ranks = [np.argsort(np.argsort(x[has_plays])) for x in (n_listeners, listeners.popularity)]
    assert np.corrcoef(*ranks)[0, 1] > 0.9
