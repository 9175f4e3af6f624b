"""The bag of words against brute-force assignment and scikit-learn's PCA."""

import tracemalloc
from typing import ClassVar

import numpy as np
import pytest
from sklearn.decomposition import PCA

from needledrop.audio import bag_of_words
from needledrop.audio.bag_of_words import BagOfWords, BagOfWordsConfig, frames_with_differences
from needledrop.audio.extraction import ExtractionConfig, extract_features
from needledrop.errors import ArtifactBroken, ConfigRejected, InputError
from tests.audio.conftest import chord, encode

N_SONGS = 12


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    clips = {
        f"SO{n:02}": encode(folder / f"{n}.wav", chord(3.2, 22_050, seed=n), 22_050)
        for n in range(N_SONGS)
    }
    config = ExtractionConfig(n_processes=1)
    return extract_features(clips, folder / "shards", folder / "features.json", config)


@pytest.fixture(scope="module", params=[16, 8], ids=["more words", "more songs"])
def fitted(store, request):
    return BagOfWords.fit(store, store.song_ids.tolist(), BagOfWordsConfig(n_words=request.param))


def histograms(store, fitted) -> np.ndarray:
    rows = []
    for song_id in store.song_ids.tolist():
        frames = (frames_with_differences(store[song_id].mfcc) - fitted.center) / fitted.scale
        counts = np.zeros(len(fitted.words))
        for frame in frames:
            counts[np.argmin([np.sum((frame - word) ** 2) for word in fitted.words])] += 1
        rows.append(counts / len(frames))
    return np.array(rows)


def test_bags_are_the_shares_of_nearest_words_projected(store, fitted):
    expected = (histograms(store, fitted) - fitted.mean_histogram) @ fitted.components
    bags = fitted.transform(store[song_id].mfcc for song_id in store.song_ids.tolist())
    assert bags.dtype == np.float32
    np.testing.assert_allclose(bags, expected, atol=2e-3)


def test_components_keep_95_percent_of_the_variance_like_scikit_learn(store, fitted):
    reference = PCA(n_components=0.95, svd_solver="full").fit(histograms(store, fitted))
    assert fitted.n_components == reference.n_components_
    overlap = np.abs(np.sum(fitted.components.T * reference.components_, axis=1))
    np.testing.assert_allclose(overlap, 1.0, atol=1e-2)


class ManySongs:
    """MFCCs of thousands of short songs, made when they are asked for."""

    song_ids: ClassVar = [f"SO{number:05}" for number in range(3_000)]

    def __contains__(self, song_id: str) -> bool:
        return True

    def n_frames(self, song_id: str) -> int:
        return 9

    def mfcc(self, song_id: str) -> np.ndarray:
        generator = np.random.default_rng(int(song_id[2:]))
        return generator.normal(generator.normal(size=13), 1, (9, 13)).astype(np.float16)


@pytest.mark.long
def test_memory_is_flat_in_the_number_of_songs(monkeypatch):
    """Of more songs than words, sums are kept and no histogram is; bags are made as they come."""
    n_words, store = 100, ManySongs()
    config = BagOfWordsConfig(n_words=n_words, n_iterations=2, kept_variance=0.1)
    one_histogram_a_song = 4 * n_words * len(store.song_ids)
    find_components, of_fit = bag_of_words._mean_and_components, []

    def measured(*arguments):
        tracemalloc.start()  # the frames that K-means saw are there anyway
        found = find_components(*arguments)
        of_fit.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        return found

    monkeypatch.setattr(bag_of_words, "_mean_and_components", measured)
    monkeypatch.setattr(bag_of_words, "_SONGS_A_PRODUCT", 128)
    fitted = BagOfWords.fit(store, store.song_ids, config)
    tracemalloc.start()
    bags = fitted.transform(map(store.mfcc, store.song_ids))
    of_bags = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert of_fit[0] < 0.75 * one_histogram_a_song
    assert of_bags < 0.75 * one_histogram_a_song
    assert bags.shape == (3_000, fitted.n_components)
    np.testing.assert_allclose(bags.mean(axis=0), 0.0, atol=1e-5)


def test_no_clip_is_no_row(fitted):
    assert fitted.transform([]).shape == (0, fitted.n_components)


def test_frames_carry_first_and_second_differences(store):
    mfcc = store["SO00"].mfcc
    frames = frames_with_differences(mfcc)
    assert frames.shape == (len(mfcc), 39)
    padded = np.pad(mfcc.astype(np.float64), ((2, 2), (0, 0)), mode="edge")
    n = len(mfcc)
    slope = sum(k * (padded[2 + k : 2 + k + n] - padded[2 - k : 2 - k + n]) for k in (1, 2)) / 10
    np.testing.assert_allclose(frames[:, 13:26], slope, atol=1e-2)


def test_only_the_songs_that_are_named_are_listened_to(store):
    few = store.song_ids.tolist()[:4]
    config = BagOfWordsConfig(n_words=8)
    first = BagOfWords.fit(store, few, config)
    again = BagOfWords.fit(store, [*few[::-1], "unknown"], config)
    np.testing.assert_array_equal(first.words, again.words)
    assert first.n_components <= 4


def test_saving_keeps_every_bit(store, fitted, tmp_path):
    fitted.save(tmp_path / "bow")
    loaded = BagOfWords.load(tmp_path / "bow")
    clips = [store[song_id].mfcc for song_id in store.song_ids.tolist()]
    np.testing.assert_array_equal(loaded.transform(clips), fitted.transform(clips))
    (tmp_path / "bow" / "bag_of_words.safetensors").write_bytes(b"half")
    with pytest.raises(ArtifactBroken, match="run extract_features again"):
        BagOfWords.load(tmp_path / "bow")


def test_no_song_or_impossible_settings_are_refused(store):
    with pytest.raises(InputError, match="training songs with features"):
        BagOfWords.fit(store, ["unknown"])
    for settings in ({"n_words": 1}, {"kept_variance": 0.0}, {"n_iterations": 0}):
        with pytest.raises(ConfigRejected, match=f"bag_of_words.{next(iter(settings))}"):
            BagOfWordsConfig(**settings)
