"""The map: the two principal components, by an independent SVD; samples; songs that come later."""

import dataclasses

import numpy as np
import pytest

from needledrop.ranking.collection import Songs
from needledrop.ranking.song_index import SongIndex
from needledrop.ranking.song_map import SongMap


def songs(n_songs: int, n_factors: int = 5, seed: int = 0, prefix: str = "SO") -> Songs:
    generator = np.random.default_rng(seed)
    nothing = np.full(n_songs, "", dtype=np.str_)
    return Songs(
        ids=np.array([f"{prefix}{number:05d}" for number in range(n_songs)]),
        factors=generator.standard_normal((n_songs, n_factors), dtype=np.float32),
        sources=np.full(n_songs, "usage"),
        artist_ids=nothing,
        years=np.zeros(n_songs, dtype=np.int32),
        n_plays=np.zeros(n_songs, dtype=np.int64),
        is_withdrawn=np.zeros(n_songs, dtype=bool),
        available_from=np.full(n_songs, "NaT", dtype="datetime64[s]"),
        blocked_regions=nothing,
    )


def index_of(some: Songs) -> SongIndex:
    n_factors = some.factors.shape[1]
    users = np.random.default_rng(1).standard_normal((50, n_factors))
    return SongIndex(some, users.T @ users)


def test_the_places_are_the_two_principal_components_of_usage_directions():
    index = index_of(songs(80))
    places = SongMap(index).places(index, index.songs.factors)
    directions = index.directions(index.songs.factors).astype(np.float64)
    centred = directions - directions.mean(axis=0)
    left, strengths, _ = np.linalg.svd(centred, full_matrices=False)
    by_svd = left[:, :2] * strengths[:2]
    signs = np.sign((places * by_svd).sum(axis=0))
    np.testing.assert_allclose(places, by_svd * signs, atol=1e-5)
    assert places[:, 0].std() >= places[:, 1].std()


def test_the_same_songs_give_the_same_map_and_a_scaled_song_the_same_place():
    index = index_of(songs(80))
    one, two = SongMap(index), SongMap(index_of(songs(80)))
    factors = index.songs.factors[:3]
    np.testing.assert_array_equal(one.places(index, factors), two.places(index, factors))
    np.testing.assert_allclose(
        one.places(index, 7 * factors), one.places(index, factors), atol=1e-5
    )


def test_many_songs_are_sampled_the_same_way_each_time_and_added_ones_are_among_them():
    index = index_of(songs(60))
    song_map = SongMap(index)
    np.testing.assert_array_equal(song_map.sample(index), np.arange(60))
    some = song_map.sample(index, n_most=20)
    assert len(set(some.tolist())) == 20
    np.testing.assert_array_equal(some, SongMap(index).sample(index, n_most=20))
    before = song_map.places(index, index.songs.factors[:5])
    grown = index.with_songs(songs(4, seed=9, prefix="NEW"))
    assert set(song_map.sample(grown, n_most=20)[-4:].tolist()) == {60, 61, 62, 63}
    assert len(song_map.sample(grown, n_most=20)) == 20
    np.testing.assert_array_equal(song_map.places(grown, grown.songs.factors[:5]), before)


@pytest.mark.parametrize(("n_songs", "n_factors"), [(1, 5), (2, 1), (3, 2)])
def test_the_smallest_catalogues_have_a_map(n_songs, n_factors):
    index = index_of(songs(n_songs, n_factors))
    places = SongMap(index).places(index, index.songs.factors)
    assert places.shape == (n_songs, 2)
    assert np.isfinite(places).all()


def test_a_song_without_a_pattern_lies_where_it_can():
    index = index_of(dataclasses.replace(songs(10)))
    silent = np.zeros((1, 5), dtype=np.float32)
    assert np.isfinite(SongMap(index).places(index, silent)).all()
