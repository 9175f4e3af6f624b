"""What an encoder is fitted on, gathered from the feature store and the artifacts."""

from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.store import FactorStore
from feature_repo.training import TrainingTable
from needledrop.artifacts import (
    fingerprint_of_code,
    fingerprint_of_file,
    fingerprint_of_folder,
    fingerprint_of_json,
    read_json,
)
from needledrop.audio.bag_of_words import BagOfWords
from needledrop.audio.feature_store import FeatureStore
from needledrop.encoders.bundle import Bundle
from needledrop.encoders.calibration import fit_stretch
from needledrop.encoders.catalogue import Catalogue
from needledrop.encoders.cnn import CnnEncoder
from needledrop.encoders.drift import FEWEST_SONGS, MOST_SONGS, FactorReference
from needledrop.encoders.linear import LinearEncoder
from needledrop.encoders.targets import TargetScaler
from needledrop.factors.wmf import Factors
from needledrop.plays.split import Split
from needledrop.plays.triplets import Plays
from needledrop.ranking.held_out import HeldOutSongs
from needledrop.ranking.similar import gram_of_users


@dataclass(frozen=True)
class Material:
    """What every encoder is fitted on.

    Attributes:
        table: training and validation songs with factors and bags of words, from the feature store.
        factors: of the users, and of those songs.
        plays: all accepted plays; only the catalogue looks at those of held-out songs.
        split: which songs are which.
        features: log-mel and MFCCs.
        bag_of_words: fitted on the training songs' sound.
        data_fingerprint: of plays, split and features.
    """

    table: TrainingTable
    factors: Factors
    plays: Plays
    split: Split
    features: FeatureStore
    bag_of_words: BagOfWords
    data_fingerprint: str

    @cached_property
    def scaler(self) -> TargetScaler:
        """Fitted on the factors of all songs of the table."""
        return TargetScaler.fit(self.table.song_factors)

    @cached_property
    def training_rows(self) -> NDArray[np.intp]:
        """The rows of the table that are training songs."""
        return np.flatnonzero(np.isin(self.table.song_ids, self.split.train))

    @cached_property
    def validation(self) -> HeldOutSongs:
        """The validation songs, for listeners who are known by their plays of training songs."""
        return HeldOutSongs.of_validation(self.split, self.plays, self.factors, self.features)

    @cached_property
    def training_plays(self) -> Plays:
        """Of the training songs alone."""
        return self.plays.of_songs(self.split.train.tolist())

    def stretch_for(self, predicted: NDArray[np.float32]) -> float:
        """Return the stretch of an encoder that has learned from the training songs alone.

        Args:
            predicted: (n, k) factors of the validation songs.
        """
        validation = self.validation
        return fit_stretch(
            predicted,
            validation.relevant,
            validation.factors.user_factors,
            validation.factors.song_factors,
            self.training_plays.user_song,
        )

    def reference_of(self, encoder: LinearEncoder | CnnEncoder) -> FactorReference | None:
        """Return how an encoder's factors lie for songs that it has not learned from.

        They are test songs, or a seeded sample of them: by now no others are unheard. Only their
        sound is, and nothing is chosen by it. None where there are too few of them.
        """
        songs = [song_id for song_id in self.split.test.tolist() if song_id in self.features]
        if len(songs) < FEWEST_SONGS:
            return None
        if len(songs) > MOST_SONGS:
            drawn = np.random.default_rng(0).choice(len(songs), MOST_SONGS, replace=False)
            songs = [songs[number] for number in np.sort(drawn)]
        return FactorReference.fit(encoder.factors([self.features[song_id] for song_id in songs]))

    def summary(self) -> str:
        """Say in half a sentence what there is to learn from."""
        return (
            f"{len(self.training_rows)} training songs and {len(self.validation.song_ids)} "
            f"validation songs, {self.factors.n_factors} factors"
        )

    def bundle(self, encoder: LinearEncoder | CnnEncoder, about: dict[str, Any]) -> Bundle:
        """Put a fitted encoder together with the catalogue that it completes."""
        return Bundle(
            encoder=encoder,
            frontend=self.features.frontend,
            catalogue=Catalogue.assemble(encoder, self.factors, self.plays, self.features),
            gram=gram_of_users(self.factors.user_factors),
            reference=self.reference_of(encoder),
            about={
                **about,
                "wmf": asdict(self.factors.config),
                "split": {"kind": self.split.kind, "seed": self.split.seed},
                "n_training_songs": len(self.table.song_ids),
                "n_listeners": len(self.factors.user_ids),
                "data_fingerprint": self.data_fingerprint,
                "code_fingerprint": fingerprint_of_code(),
            },
        )


def gather(
    published_path: Path,
    factors_path: Path,
    features_path: Path,
    plays_path: Path,
    split_path: Path,
    store: str,
) -> Material:
    """Open everything; the training table comes from the feature store's offline side."""
    published = read_json(published_path)
    features = FeatureStore.open(features_path / "features.json")
    factors = Factors.load(factors_path)
    audible = [song_id for song_id in factors.song_ids.tolist() if song_id in features]
    table = FactorStore.open(store).training_table(
        audible,
        at=datetime.fromisoformat(published["at"]),
        factors_version=published["factors_version"],
        audio_version=published["audio_version"],
    )
    return Material(
        table=table,
        factors=factors,
        plays=Plays.load(plays_path),
        split=Split.load(split_path),
        features=features,
        bag_of_words=BagOfWords.load(features_path / "bag_of_words"),
        data_fingerprint=fingerprint_of_json(
            [
                fingerprint_of_folder(plays_path),
                fingerprint_of_file(split_path),
                published["factors_version"],
                published["audio_version"],
                {song_id: features.n_frames(song_id) for song_id in features.song_ids.tolist()},
            ]
        ),
    )
