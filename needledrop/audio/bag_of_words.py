"""MFCCs -> K-means counts -> PCA: the bag-of-words representation of van den Oord et al. (2013).

13 MFCCs with their first and second differences are 39 numbers a frame; each frame is assigned to
the nearest of w means; a clip is the histogram of its frames' words, as shares, so that clips of
different lengths compare; PCA keeps 95% of the variance over the songs it was fitted on.

Shapes: n songs, t frames, w words, d principal components.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import faiss
import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from needledrop.artifacts import read_json, whole_folder, write_json
from needledrop.audio.feature_store import FeatureStore
from needledrop.errors import ArtifactBroken, ConfigRejected, InputError, ShapeMismatch

_FRAMES_A_WORD = 64  # K-means sees at most so many frames for each word; more change little
_CLIPS_AT_ONCE = 64
_SONGS_A_PRODUCT = 1024
_SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True)
class BagOfWordsConfig:
    """How the words are found.

    Attributes:
        n_words: w, the number of means; fewer where there are too few frames for so many.
        n_iterations: of K-means.
        kept_variance: share of the variance that the principal components keep.
        seed: of the frames' sample and of K-means.
    """

    n_words: int = 4000
    n_iterations: int = 10
    kept_variance: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.n_words <= 1_000_000:
            raise ConfigRejected(f"bag_of_words.n_words: expected 2 to 1000000, got {self.n_words}")
        if not 1 <= self.n_iterations <= 1000:
            raise ConfigRejected(
                f"bag_of_words.n_iterations: expected 1 to 1000, got {self.n_iterations}"
            )
        if not (math.isfinite(self.kept_variance) and 0 < self.kept_variance <= 1):
            raise ConfigRejected(
                f"bag_of_words.kept_variance: expected 0 < share <= 1, got {self.kept_variance}"
            )


@dataclass(frozen=True)
class BagOfWords:
    """The fitted words and components.

    Attributes:
        center: (39,) float32, subtracted from each frame.
        scale: (39,) float32, each frame is divided by it.
        words: (w, 39) float32, the means.
        mean_histogram: (w,) float32.
        components: (w, d) float32, orthonormal columns.
        config: what they were fitted with.
    """

    center: NDArray[np.float32]
    scale: NDArray[np.float32]
    words: NDArray[np.float32]
    mean_histogram: NDArray[np.float32]
    components: NDArray[np.float32]
    config: BagOfWordsConfig

    @property
    def n_components(self) -> int:
        """d."""
        return int(self.components.shape[1])

    @classmethod
    def fit(
        cls, store: FeatureStore, song_ids: Sequence[str], config: BagOfWordsConfig | None = None
    ) -> "BagOfWords":
        """Find words and components from the sound of the training songs alone.

        Raises:
            InputError: no song has features.
        """
        config = config or BagOfWordsConfig()
        song_ids = [song_id for song_id in sorted(song_ids) if song_id in store]
        if not song_ids:
            raise InputError("expected training songs with features, got none; check audio=")
        frames = _sampled_frames(store, song_ids, config)
        center = frames.mean(axis=0)
        scale = np.maximum(frames.std(axis=0), _SMALLEST_DEVIATION)
        words = _means((frames - center) / scale, config)
        blocks = _histograms(map(store.mfcc, song_ids), center, scale, words)
        mean, components = _mean_and_components(
            blocks, len(song_ids), len(words), config.kept_variance
        )
        return cls(center, scale, words, mean, components, config)

    def transform(self, mfccs: Iterable[NDArray[np.float16]]) -> NDArray[np.float32]:
        """Return the (n, d) float32 representations of n clips from their (t, 13) MFCCs.

        Raises:
            ShapeMismatch: another number of MFCCs than the words were fitted on.
        """
        blocks = _histograms(mfccs, self.center, self.scale, self.words)
        # Projected as they come: histograms are larger than bags, by words over components.
        bags = [(block - self.mean_histogram) @ self.components for block in blocks]
        return np.concatenate([np.empty((0, self.n_components), np.float32), *bags])

    def save(self, folder: Path) -> None:
        """Write as one folder, whole or not at all."""
        arrays = asdict(self)
        config = arrays.pop("config")
        with whole_folder(folder) as temporary:
            save_file(
                {name: np.ascontiguousarray(array) for name, array in arrays.items()},
                temporary / "bag_of_words.safetensors",
            )
            write_json(temporary / "bag_of_words.json", config)

    @classmethod
    def load(cls, folder: Path) -> "BagOfWords":
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactBroken: the folder is not a whole bag of words.
        """
        config = BagOfWordsConfig(**read_json(folder / "bag_of_words.json"))
        try:
            arrays = load_file(folder / "bag_of_words.safetensors")
            return cls(config=config, **arrays)
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            raise ArtifactBroken(
                f"{folder}: expected bag_of_words.safetensors, got {error}; "
                "run extract_features again"
            ) from error


def frames_with_differences(mfcc: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return (t, 39) float32: MFCCs, their first and their second differences over time."""
    coefficients = torch.from_numpy(np.array(mfcc, dtype=np.float32).T)  # (13, t)
    first = torchaudio.functional.compute_deltas(coefficients)
    second = torchaudio.functional.compute_deltas(first)
    frames: NDArray[np.float32] = torch.cat([coefficients, first, second]).T.contiguous().numpy()
    return frames


def _sampled_frames(
    store: FeatureStore, song_ids: Sequence[str], config: BagOfWordsConfig
) -> NDArray[np.float32]:
    """Return frames from all songs, the same share of each, at most _FRAMES_A_WORD for a word."""
    n_frames = sum(store.n_frames(song_id) for song_id in song_ids)
    share = min(1.0, _FRAMES_A_WORD * config.n_words / n_frames)
    generator = np.random.default_rng(config.seed)
    parts = []
    for song_id in song_ids:
        frames = frames_with_differences(store.mfcc(song_id))
        n_taken = max(1, round(share * len(frames)))
        parts.append(frames[np.sort(generator.choice(len(frames), n_taken, replace=False))])
    return np.concatenate(parts)


def _means(frames: NDArray[np.float32], config: BagOfWordsConfig) -> NDArray[np.float32]:
    n_words = min(config.n_words, len(frames))
    kmeans = faiss.Kmeans(
        frames.shape[1],
        n_words,
        niter=config.n_iterations,
        seed=config.seed,
        min_points_per_centroid=1,  # it only warns below; small catalogues are allowed
        max_points_per_centroid=_FRAMES_A_WORD + 1,
    )
    kmeans.train(np.ascontiguousarray(frames))
    return np.asarray(kmeans.centroids, dtype=np.float32)


def _histograms(
    mfccs: Iterable[NDArray[np.float16]],
    center: NDArray[np.float32],
    scale: NDArray[np.float32],
    words: NDArray[np.float32],
) -> Iterator[NDArray[np.float32]]:
    """Yield some clips' shares of words at a time, (n, w).

    Many clips are looked up at once: faiss is five times as fast on a thousand frames and more.
    """
    index = faiss.IndexFlatL2(words.shape[1])
    index.add(words)
    clips = ((_frames_like(center, mfcc) - center) / scale for mfcc in mfccs)
    while block := list(itertools.islice(clips, _CLIPS_AT_ONCE)):
        _, nearest = index.search(np.concatenate(block), 1)
        ends = np.cumsum([len(frames) for frames in block])[:-1]
        histograms = [
            np.bincount(clip_words, minlength=len(words)) / len(clip_words)
            for clip_words in np.split(nearest[:, 0], ends)
        ]
        yield np.array(histograms, dtype=np.float32)


def _frames_like(center: NDArray[np.float32], mfcc: NDArray[np.float16]) -> NDArray[np.float32]:
    n_mfccs = len(center) // 3
    if mfcc.ndim != 2 or mfcc.shape[1] != n_mfccs or not len(mfcc):
        raise ShapeMismatch(
            f"expected MFCCs of shape (t, {n_mfccs}), got {mfcc.shape}; "
            "were they made by another front end?"
        )
    return frames_with_differences(mfcc)


def _mean_and_components(
    blocks: Iterable[NDArray[np.float32]], n_songs: int, n_words: int, kept_variance: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean (w,) and the components (w, d) that keep the share of the variance.

    Of more songs than words only sums are held, w x w numbers, whatever the number of songs: all
    histograms of 276,000 songs, and what their decomposition takes, would be 35 GB.

    Args:
        blocks: (n, w) histograms of some songs each.
        n_songs: of all blocks.
        n_words: w.
        kept_variance: the share; at least one component is kept.
    """
    if n_songs <= n_words:
        histograms = np.concatenate(list(blocks))
        mean = histograms.mean(axis=0)
        centered = (histograms - mean).astype(np.float64)
        _, singular, directions = np.linalg.svd(centered, full_matrices=False)
        return mean, _kept(singular**2, directions.T, kept_variance)
    total, products = np.zeros(n_words), np.zeros((n_words, n_words))
    for block in _joined(blocks, _SONGS_A_PRODUCT):
        histograms64 = block.astype(np.float64)
        total += histograms64.sum(axis=0)
        products += histograms64.T @ histograms64
    mean64 = total / n_songs
    variances, vectors = np.linalg.eigh(products - n_songs * np.outer(mean64, mean64))
    # In descending order; where there is no variance, rounding makes it a little less than none.
    kept = _kept(np.maximum(variances[::-1], 0.0), vectors[:, ::-1], kept_variance)
    return mean64.astype(np.float32), kept


def _joined(blocks: Iterable[NDArray[np.float32]], n_rows: int) -> Iterator[NDArray[np.float32]]:
    """Yield blocks of so many rows or somewhat more, but for the last."""
    together: list[NDArray[np.float32]] = []
    for block in blocks:
        together.append(block)
        if sum(map(len, together)) >= n_rows:
            yield np.concatenate(together)
            together = []
    if together:
        yield np.concatenate(together)


def _kept(
    variances: NDArray[np.float64], directions: NDArray[np.float64], kept_variance: float
) -> NDArray[np.float32]:
    """Return the first columns of (w, n) directions that keep the share; at least one."""
    variance = np.cumsum(variances)
    n_kept = int(np.searchsorted(variance, kept_variance * variance[-1] * (1 - 1e-12))) + 1
    return np.ascontiguousarray(directions[:, :n_kept], dtype=np.float32)
