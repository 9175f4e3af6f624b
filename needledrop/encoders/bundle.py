"""All that a prediction needs, in one folder under one fingerprint.

Weights (safetensors, never pickle), front end, target scaler, the catalogue of song factors and
the listeners' Gram matrix. Who holds a bundle names no hop length, no mean and no path: it gives
the bundle a clip and gets factors. The fingerprint covers every byte but its own file.

Shapes: t frames, m mel bands, I songs, U users, k factors.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from needledrop.artifacts import fingerprint_of_folder, read_json, whole_folder, write_json
from needledrop.audio.canned import canned_clips
from needledrop.audio.decode import DecodeLimits, decode_clip
from needledrop.audio.frontend import ClipFeatures, Frontend, FrontendConfig
from needledrop.encoders.catalogue import Catalogue
from needledrop.encoders.cnn import CnnEncoder
from needledrop.encoders.drift import FactorReference
from needledrop.encoders.linear import LinearEncoder
from needledrop.encoders.mlp import MlpEncoder
from needledrop.encoders.saved import model_from, save_tensors, save_words
from needledrop.errors import ArtifactBroken, FrontendMismatch, ShapeMismatch
from needledrop.factors.confidence import ConfidenceConfig, confidence_from_plays
from needledrop.factors.fold_in import fold_in_rows
from needledrop.factors.sources import USAGE
from needledrop.plays.triplets import Plays

_FINGERPRINT_FILE = "fingerprint.json"
_CANNED_FILE = "canned.safetensors"
_REFERENCE_FILE = "reference.safetensors"
VERSION_DIGITS = 16

Encoder = CnnEncoder | LinearEncoder | MlpEncoder


@dataclass(frozen=True)
class Bundle:
    """A trained encoder with everything around it.

    Attributes:
        encoder: the model.
        frontend: what its features are made with.
        catalogue: every song's factors in the encoder's space.
        gram: (k, k) float64, X^T X of the user factors: what similarity by usage needs.
        about: how it was made: configurations, fingerprints of data and code, figures.
        fingerprint: 64 hexadecimal digits; empty until the bundle is saved or loaded.
        canned_factors: (n, k) of the canned clips, where the bundle was made: what it must answer
            wherever it runs. None before it is saved, and in bundles of older versions.
        reference: how its predicted factors lie, for songs that it has not learned from. None where
            there were few of them, and in bundles of older versions.
    """

    encoder: Encoder
    frontend: FrontendConfig
    catalogue: Catalogue
    gram: NDArray[np.float64]
    about: Mapping[str, Any]
    fingerprint: str = ""
    canned_factors: NDArray[np.float32] | None = None
    reference: FactorReference | None = None

    @property
    def version(self) -> str:
        """The fingerprint's first digits: the name of the version in a registry."""
        return self.fingerprint[:VERSION_DIGITS]

    @property
    def encoder_name(self) -> str:
        """``cnn``, ``linear``, ``mlp`` or ``cnn2014``."""
        return self.encoder.name

    @property
    def n_factors(self) -> int:
        """k."""
        return self.encoder.n_factors

    @cached_property
    def _frontend(self) -> Frontend:
        return Frontend(self.frontend)

    def waveform(
        self, source: bytes | Path, limits: DecodeLimits | None = None
    ) -> NDArray[np.float32]:
        """Decode a clip to (n,) float32 at the front end's sample rate.

        Raises:
            ClipRejected: the clip can't be used.
        """
        return decode_clip(source, self.frontend.sample_rate_hz, limits)

    def features(self, waveform: NDArray[np.float32]) -> ClipFeatures:
        """Return what the front end hears in a waveform."""
        return self._frontend.features(waveform)

    def n_beyond_full_scale(self, features: ClipFeatures) -> int:
        """Return how many values of the log-mel were cut, as samples were beyond -1 and 1."""
        return self._frontend.n_beyond_full_scale(features.log_mel)

    def factors(self, features: ClipFeatures) -> NDArray[np.float32]:
        """Return (k,) float32 factors."""
        factors: NDArray[np.float32] = self.encoder.factors([features])[0]
        return factors

    def factors_from_clip(
        self, source: bytes | Path, limits: DecodeLimits | None = None
    ) -> NDArray[np.float32]:
        """Return (k,) float32 factors of an encoded clip.

        Raises:
            ClipRejected: the clip can't be used.
        """
        return self.factors(self.features(self.waveform(source, limits)))

    def n_windows(self, features: ClipFeatures) -> int:
        """Return how many windows the network hears a clip by: what it costs; 1 without a network.

        Raises:
            ShapeMismatch: other mel bands, or fewer frames than a window.
        """
        return self.encoder.n_windows(features) if isinstance(self.encoder, CnnEncoder) else 1

    @property
    def windows_at_once(self) -> int:
        """How many windows are worth taking together."""
        return self.encoder.windows_at_once if isinstance(self.encoder, CnnEncoder) else 1

    def factors_from_log_mel(self, log_mel: NDArray[np.float16]) -> NDArray[np.float32]:
        """Return (k,) float32 factors of log-mel; raises as :meth:`features_from_log_mel`."""
        return self.factors(self.features_from_log_mel(log_mel))

    def features_from_log_mel(self, log_mel: NDArray[np.float16]) -> ClipFeatures:
        """Return features from (t, m) log-mel of this bundle's front end, rounded as it rounds.

        Raises:
            ShapeMismatch: not (t, m), fewer frames than a window, or not finite.
            FrontendMismatch: this encoder does not hear log-mel.
        """
        if not isinstance(self.encoder, CnnEncoder):
            raise FrontendMismatch(
                f"expected a clip: the {self.encoder_name} encoder hears MFCCs, not log-mel"
            )
        if not np.isfinite(log_mel).all():
            raise ShapeMismatch("expected finite log-mel, got NaN or infinity")
        heard = ClipFeatures(np.asarray(log_mel, np.float16), np.empty((0, 0), np.float16))
        self.n_windows(heard)  # refuses another shape
        return heard._replace(log_mel=self._frontend.as_kept(heard.log_mel))

    def hear_canned_clips(self) -> NDArray[np.float32]:
        """Return (n, k) factors of the canned clips, as they come out here and now."""
        limits = DecodeLimits(min_seconds=self.frontend.window_seconds / 2)
        return np.stack(
            [self.factors_from_clip(clip, limits) for clip in canned_clips(self.frontend)]
        )

    def fold_in_users(self, plays: Plays) -> NDArray[np.float32]:
        """Return (U, k) user factors in this bundle's space, from any plays.

        Only songs whose factors come from usage and that the bundle was trained on speak: a
        prediction must not vouch for itself.
        """
        trained = (self.catalogue.sources == USAGE) & self.catalogue.is_training_song
        known = np.intersect1d(plays.song_ids, self.catalogue.song_ids[trained])
        rows = np.searchsorted(self.catalogue.song_ids, known)
        confidence = confidence_from_plays(
            plays.of_songs(known).user_song, ConfidenceConfig(**self.about["wmf"]["confidence"])
        )
        return fold_in_rows(
            confidence, self.catalogue.song_factors[rows], self.about["wmf"]["regularization"]
        )

    def save(self, folder: Path) -> "Bundle":
        """Write the bundle whole or not at all; return it with its fingerprint."""
        canned_factors = self.hear_canned_clips()
        with whole_folder(folder) as temporary:
            content = self.encoder.content()
            save_tensors(content, temporary / "weights.safetensors")
            save_file({"gram": np.ascontiguousarray(self.gram)}, temporary / "users.safetensors")
            save_file({"factors": canned_factors}, temporary / _CANNED_FILE)
            if self.reference is not None:
                self.reference.save(temporary / _REFERENCE_FILE)
            self.catalogue.save(temporary)
            write_json(
                temporary / "bundle.json",
                {
                    "encoder": {"name": self.encoder_name, **content.settings},
                    "frontend": asdict(self.frontend),
                    "about": dict(self.about),
                },
            )
            save_words(content, temporary)
            fingerprint = fingerprint_of_folder(temporary)
            write_json(temporary / _FINGERPRINT_FILE, {"sha256": fingerprint})
        return replace(self, fingerprint=fingerprint, canned_factors=canned_factors)

    @classmethod
    def load(cls, folder: Path) -> "Bundle":
        """Read a bundle and check every byte of it against its fingerprint.

        Raises:
            ArtifactBroken: something is missing, or was changed.
        """
        expected = read_json(folder / _FINGERPRINT_FILE).get("sha256")
        got = fingerprint_of_folder(folder, without=(_FINGERPRINT_FILE,))
        if got != expected:
            raise ArtifactBroken(
                f"bundle in {folder}: expected the fingerprint {expected}, got {got}; it was "
                "changed after it was made, so take it from where it was made again"
            )
        about = read_json(folder / "bundle.json")
        try:
            return cls(
                encoder=_encoder_from(about["encoder"], folder),
                frontend=FrontendConfig.from_json(about["frontend"]),
                catalogue=Catalogue.load(folder),
                gram=load_file(folder / "users.safetensors")["gram"],
                about=about["about"],
                fingerprint=got,
                canned_factors=_canned_factors(folder),
                reference=_reference(folder),
            )
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise ArtifactBroken(
                f"bundle in {folder}: its files don't fit together ({error}); was it made by "
                "another version of needledrop?"
            ) from error


def _canned_factors(folder: Path) -> NDArray[np.float32] | None:
    path = folder / _CANNED_FILE
    return load_file(path)["factors"] if path.exists() else None


def _reference(folder: Path) -> FactorReference | None:
    path = folder / _REFERENCE_FILE
    return FactorReference.load(path) if path.exists() else None


def _encoder_from(settings: dict[str, Any], folder: Path) -> Encoder:
    about = {name: value for name, value in settings.items() if name != "name"}
    encoder = model_from(settings["name"], load_file(folder / "weights.safetensors"), about, folder)
    if not isinstance(encoder, Encoder):
        raise ValueError(f"{settings['name']!r} has no factors, so it is no encoder")
    return encoder
