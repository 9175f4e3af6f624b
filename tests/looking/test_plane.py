"""The map: planted clusters stay together, the same songs lie at the same places."""

import numpy as np
import pytest

from needledrop.looking import plane
from needledrop.looking.plane import kept_neighbours, tsne_plane


def clusters(n_each: int = 40, n_clusters: int = 6, k: int = 20, spread: float = 0.25):
    """Directions of length one around some centres, and whose each is."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((n_clusters, k))
    of = np.repeat(np.arange(n_clusters), n_each)
    places = centres[of] + generator.normal(0, spread * 2, (len(of), k))
    return (places / np.linalg.norm(places, axis=1, keepdims=True)).astype(np.float32), of


def purity(places, of, n_nearest: int = 10) -> float:
    distances = ((places[:, None] - places[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :n_nearest]
    return float((of[nearest] == of[:, None]).mean())


def test_planted_clusters_stay_together():
    directions, of = clusters()
    places = tsne_plane(directions)
    assert places.shape == (240, 2)
    assert places.dtype == np.float32
    assert np.abs(places).max() == pytest.approx(1)
    assert purity(places, of) > 0.97


@pytest.mark.long
def test_the_way_for_many_songs_keeps_them_together_too(monkeypatch):
    monkeypatch.setattr(plane, "_N_EXACT", 100)
    directions, of = clusters()
    assert purity(tsne_plane(directions), of) > 0.97


def test_the_same_seed_gives_the_same_map_and_another_one_another():
    directions, _ = clusters(n_each=12)
    one, same, other = (tsne_plane(directions, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("n_songs", [1, 2, 7, 8, 11])
@pytest.mark.parametrize("k", [1, 3])
def test_few_songs_and_one_factor_have_places(n_songs, k):
    generator = np.random.default_rng(1)
    directions = generator.standard_normal((n_songs, k)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    places = tsne_plane(directions)
    assert places.shape == (n_songs, 2)
    assert np.isfinite(places).all()
    assert 0 <= kept_neighbours(directions, places) <= 1


def test_songs_that_are_all_alike_have_places():
    assert np.isfinite(tsne_plane(np.full((20, 4), 0.5, np.float32))).all()


def test_of_many_songs_some_are_asked(monkeypatch):
    directions, _ = clusters(n_each=20)
    places = np.random.default_rng(0).standard_normal((120, 2)).astype(np.float32)
    monkeypatch.setattr(plane, "_N_ASKED", 60)
    assert kept_neighbours(directions, directions[:, :2].copy()) <= 1
    assert 0 < kept_neighbours(directions, places) < 0.5


def test_kept_neighbours_equal_a_loop():
    directions, _ = clusters(n_each=5)
    places = np.random.default_rng(0).standard_normal((30, 2)).astype(np.float32)
    kept = 0
    for row in range(30):
        others = [n for n in range(30) if n != row]
        near = sorted(others, key=lambda n: -float(directions[row] @ directions[n]))[:10]
        close = sorted(others, key=lambda n: float(((places[row] - places[n]) ** 2).sum()))[:10]
        kept += len(set(near) & set(close))
    assert kept_neighbours(directions, places) == pytest.approx(kept / 300)
