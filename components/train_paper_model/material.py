"""What a model of the paper is fitted on: the artifacts of the steps before."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from needledrop.artifacts import fingerprint_of_file, fingerprint_of_folder, fingerprint_of_json
from needledrop.audio.bag_of_words import BagOfWords
from needledrop.audio.feature_store import FeatureStore
from needledrop.encoders.model import Listeners
from needledrop.encoders.targets import TargetScaler
from needledrop.errors import InputError
from needledrop.factors.wmf import Factors
from needledrop.plays.split import Split
from needledrop.plays.triplets import Plays
from needledrop.ranking.held_out import HeldOutSongs


@dataclass(frozen=True)
class PaperMaterial:
    """What every model of the paper is fitted on.

    Attributes:
        factors: of listeners, of training and of validation songs.
        features: log-mel and MFCCs.
        plays: all accepted plays; those of test songs are not looked at.
        split: which songs are which.
        bag_of_words: fitted on the training songs' sound.
        fingerprint: of all of it.
    """

    factors: Factors
    features: FeatureStore
    plays: Plays
    split: Split
    bag_of_words: BagOfWords
    fingerprint: str

    @cached_property
    def known_ids(self) -> NDArray[np.str_]:
        """(I,) sorted: training and validation songs with sound."""
        known = [song for song in self.factors.song_ids.tolist() if song in self.features]
        if not known:
            raise InputError(
                "expected training songs with both plays and audio, got none; "
                "check that track ids name the clips"
            )
        return np.array(known, dtype=np.str_)

    @cached_property
    def known_bags(self) -> NDArray[np.float32]:
        """(I, d) bags of words of these."""
        return self.bag_of_words.transform(map(self.features.mfcc, self.known_ids.tolist()))

    @cached_property
    def _is_training(self) -> NDArray[np.bool_]:
        return np.isin(self.known_ids, self.split.train)

    @property
    def song_ids(self) -> NDArray[np.str_]:
        """(n,) sorted: the training songs with sound."""
        return self.known_ids[self._is_training]

    @property
    def bags(self) -> NDArray[np.float32]:
        """(n, d), theirs."""
        return self.known_bags[self._is_training]

    @cached_property
    def song_factors(self) -> NDArray[np.float32]:
        """(n, k), theirs."""
        return self.factors.song_factors[np.searchsorted(self.factors.song_ids, self.song_ids)]

    @cached_property
    def scaler(self) -> TargetScaler:
        """Fitted on them."""
        return TargetScaler.fit(self.song_factors)

    @cached_property
    def training_plays(self) -> Plays:
        """Of the training songs alone."""
        return self.plays.of_songs(self.split.train.tolist())

    @cached_property
    def listeners(self) -> Factors:
        """All listeners, known by plays of training songs alone; the weighted error needs them."""
        return self.factors.with_listeners_of(self.training_plays)

    @cached_property
    def validation(self) -> HeldOutSongs:
        """The validation songs, for those listeners alone whom they are ranked for.

        They are known by plays of training songs alone.
        """
        return HeldOutSongs.of_validation_for_the_asked(
            self.split, self.plays, self.factors, self.features
        )

    @cached_property
    def validation_listeners(self) -> Listeners:
        """These listeners, with what they played of training songs."""
        asked = self.validation.factors
        rows = np.searchsorted(self.training_plays.user_ids, asked.user_ids)
        return Listeners(asked, self.training_plays.of_users(rows))


def gather(
    factors_path: Path, features_path: Path, plays_path: Path, split_path: Path
) -> PaperMaterial:
    """Open everything."""
    features = FeatureStore.open(features_path / "features.json")
    return PaperMaterial(
        Factors.load(factors_path),
        features,
        Plays.load(plays_path),
        Split.load(split_path),
        BagOfWords.load(features_path / "bag_of_words"),
        fingerprint_of_json(
            [
                fingerprint_of_folder(factors_path),
                fingerprint_of_folder(plays_path),
                fingerprint_of_folder(features_path / "bag_of_words"),
                fingerprint_of_file(split_path),
                {song: features.n_frames(song) for song in features.song_ids.tolist()},
            ]
        ),
    )
