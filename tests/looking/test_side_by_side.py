"""Nearest songs under usage and predicted factors."""

import numpy as np

from needledrop.looking.heard_songs import HeardSongs
from needledrop.looking.side_by_side import side_by_side

N_USERS, N_SONGS, K = 50, 40, 5


def world(seed: int = 0):
    generator = np.random.default_rng(seed)
    users = generator.standard_normal((N_USERS, K))
    is_played = np.arange(N_SONGS) % 8 != 7
    usage = generator.standard_normal((N_SONGS, K), dtype=np.float32)
    songs = HeardSongs(
        song_ids=np.array([f"SO{n:02d}" for n in range(N_SONGS)]),
        usage=np.where(is_played[:, None], usage, 0),
        predicted=usage + generator.normal(0, 0.3, (N_SONGS, K)).astype(np.float32),
        is_played=is_played,
        is_training=is_played & (np.arange(N_SONGS) < 30),
    )
    return users, songs


def brute_force(users, factors, songs, query):
    """Cosines of whole usage patterns X y, one number a user, over the played songs."""
    patterns = factors.astype(np.float64) @ users.T
    patterns /= np.maximum(np.linalg.norm(patterns, axis=1, keepdims=True), 1e-300)
    cosines = patterns @ patterns[query]
    order = [n for n in np.argsort(-cosines) if songs.is_played[n] and n != query]
    return order, cosines


def test_both_lists_equal_a_ranking_of_whole_usage_patterns():
    users, songs = world()
    queries = np.array([0, 3, 7, 35, 39])  # 7 and 39 were never played
    got = side_by_side(songs, users.T @ users, queries, n_nearest=6)
    for row, query in enumerate(queries):
        kinds = [(got.by_audio, songs.predicted)]
        kinds += [(got.by_usage, songs.usage)] if songs.is_played[query] else []
        for neighbours, factors in kinds:
            order, cosines = brute_force(users, factors, songs, query)
            assert neighbours.rows[row].tolist() == order[:6]
            np.testing.assert_allclose(neighbours.cosines[row], cosines[order[:6]], atol=1e-5)
    shared = set(got.by_usage.rows[0].tolist()) & set(got.by_audio.rows[0].tolist())
    assert got.n_shared[0] == len(shared)


def test_a_song_is_not_its_own_neighbour_even_among_twins():
    users, songs = world()
    songs.usage[:20] = songs.usage[0]
    songs.predicted[:20] = songs.predicted[0]
    got = side_by_side(songs, users.T @ users, np.arange(N_SONGS), n_nearest=5)
    for neighbours in (got.by_usage, got.by_audio):
        assert neighbours.rows.shape == (N_SONGS, 5)
        assert not (neighbours.rows == np.arange(N_SONGS)[:, None]).any()


def test_fewer_songs_give_shorter_lists():
    users, songs = world()
    few = HeardSongs(*(column[:3] for column in vars(songs).values()))
    assert side_by_side(few, users.T @ users, np.array([1])).by_usage.rows.shape == (1, 2)
    one = HeardSongs(*(column[:1] for column in vars(songs).values()))
    assert side_by_side(one, users.T @ users, np.array([0])).by_audio.rows.shape == (1, 0)
    unplayed = HeardSongs(*(column[7:8] for column in vars(songs).values()))
    assert side_by_side(unplayed, users.T @ users, np.array([0])).by_audio.rows.shape == (1, 0)
