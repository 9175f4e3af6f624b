"""How far predicted factors have moved from those of songs like the ones that were learned from.

The reference is what an encoder predicts for songs of the same catalogue that it has not heard:
for songs that it has learned from, it predicts more than it can know. The statistic is the
population stability index (PSI), of each factor by itself, averaged over the factors:

    PSI = 1/k sum_f sum_b (p_fb - q_fb) ln(p_fb / q_fb)

with q_fb the share of the reference's songs in bin b of factor f, whose edges are the reference's
quantiles, and p_fb the share of the songs in question. There are as many bins as hold ten songs of
the reference each, at most ten. Half a song is added to each bin, so that none is empty. Below 0.1
is commonly read as no shift, above 0.25 as one.

Songs that haven't moved read more than 0, too. For n of them and m of the reference a factor's PSI
is about (1/n + 1/m) times a chi-squared variable of B - 1 degrees of freedom, so the mean reads

    (B - 1) (1/n + 1/m), with a standard deviation of at most sqrt(2 (B - 1)) (1/n + 1/m)

which is less as far as the factors are independent. docs/adr/0017 has the choice.

Shapes: n songs, m songs of the reference, k factors, B bins.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from needledrop.errors import ArtifactBroken, ShapeMismatch

MOST_BINS = 10
_SONGS_OF_A_BIN = 10
#: Fewer songs, of the reference or in a window, say too little.
FEWEST_SONGS = 30
#: More of them change what is read without drift by less than 0.01.
MOST_SONGS = 1000


@dataclass(frozen=True)
class FactorReference:
    """How predicted factors lie where nothing has drifted.

    Attributes:
        edges: (k, B - 1) float32, between the bins of each factor.
        counts: (k, B) int64, songs of the reference in each bin.
    """

    edges: NDArray[np.float32]
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        n_factors, n_bins = self.counts.shape
        if self.edges.shape != (n_factors, n_bins - 1):
            raise ShapeMismatch(
                f"expected edges of shape {(n_factors, n_bins - 1)}, got {self.edges.shape}"
            )

    @classmethod
    def fit(cls, factors: NDArray[np.float32]) -> "FactorReference":
        """Take (m, k) predicted factors of songs that the encoder has not learned from.

        Raises:
            ShapeMismatch: of fewer than ``FEWEST_SONGS`` songs.
        """
        if len(factors) < FEWEST_SONGS:
            raise ShapeMismatch(f"expected {FEWEST_SONGS} songs or more, got {len(factors)}")
        n_bins = min(MOST_BINS, len(factors) // _SONGS_OF_A_BIN)
        edges = np.quantile(factors, np.arange(1, n_bins) / n_bins, axis=0).T.astype(np.float32)
        columns = _bins_of(factors, edges).T
        return cls(edges, np.stack([np.bincount(one, minlength=n_bins) for one in columns]))

    @property
    def n_songs(self) -> int:
        """m."""
        return int(self.counts[0].sum())

    def bins_of(self, factors: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the bins (n, k) that (n, k) factors fall into."""
        if factors.ndim != 2 or factors.shape[1] != len(self.edges):
            raise ShapeMismatch(f"expected factors (n, {len(self.edges)}), got {factors.shape}")
        return _bins_of(factors, self.edges)

    def index(self, counts: NDArray[np.int64]) -> float:
        """Return the PSI, averaged over factors, of songs of which (k, B) are in the bins."""
        ours, theirs = _shares(counts), _shares(self.counts)
        return float(np.mean(np.sum((ours - theirs) * np.log(ours / theirs), axis=1)))

    def index_by_chance(self, n_songs: int) -> float:
        """Return what n songs that haven't moved read on average."""
        n_bins = self.counts.shape[1]
        return float((n_bins - 1) * (1 / n_songs + 1 / self.n_songs))

    def save(self, path: Path) -> None:
        """Write it into a folder that its owner makes whole."""
        tensors = {"edges": self.edges, "counts": self.counts}
        save_file({name: np.ascontiguousarray(one) for name, one in tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> "FactorReference":
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactBroken: it can't be read.
        """
        try:
            return cls(**load_file(path))
        except (OSError, TypeError, ValueError, SafetensorError) as error:
            raise ArtifactBroken(
                f"{path.name}: expected a reference of predicted factors, got {error}; take the "
                "bundle from where it was made again"
            ) from error


class DriftWindow:
    """The last different songs that were predicted, and how far they lie from the reference.

    The same clip, asked about again and again, is one song.

    Args:
        reference: of the encoder that predicts.
        n_songs: the most that count; the oldest are forgotten.
    """

    def __init__(self, reference: FactorReference, n_songs: int = MOST_SONGS) -> None:
        self.reference = reference
        self._most = n_songs
        self._counts = np.zeros_like(reference.counts)
        self._bins: OrderedDict[bytes, NDArray[np.uint8]] = OrderedDict()
        self._factors = np.arange(len(self._counts))

    def __len__(self) -> int:
        return len(self._bins)

    def see(self, factors: NDArray[np.float32]) -> None:
        """Count one song's factors, (k,)."""
        key = factors.tobytes()
        if key in self._bins:
            self._bins.move_to_end(key)
            return
        bins = self.reference.bins_of(factors[np.newaxis])[0]
        self._bins[key] = bins
        self._counts[self._factors, bins] += 1
        if len(self._bins) > self._most:
            _, oldest = self._bins.popitem(last=False)
            self._counts[self._factors, oldest] -= 1

    @property
    def index(self) -> float:
        """The PSI of what was seen; see :meth:`FactorReference.index`."""
        return self.reference.index(self._counts)

    @property
    def index_by_chance(self) -> float:
        """What as many songs that haven't moved read on average; infinity for none."""
        return self.reference.index_by_chance(len(self)) if len(self) else np.inf


def _bins_of(factors: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.uint8]:
    bins: NDArray[np.uint8] = (factors[:, :, np.newaxis] > edges).sum(axis=2, dtype=np.uint8)
    return bins


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    filled = counts + 0.5
    shares: NDArray[np.float64] = filled / filled.sum(axis=1, keepdims=True)
    return shares
