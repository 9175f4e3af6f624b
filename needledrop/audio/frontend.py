"""Waveform -> log-mel spectrogram and MFCCs: the one front end, for training and serving alike.

The defaults are van den Oord et al. (NIPS 2013): 22,050 Hz, windows of 1,024 samples, hop 512,
128 mel bands, log compression, here log(1 + gain * power). The 13 MFCCs are the cosine transform
of the same mel bands in decibels.

Log-mel is rounded to 256 levels for each band (:mod:`needledrop.audio.eight_bits`) and given as
float16, which holds them exactly; with ``log_mel_dtype="float16"`` it is not rounded further. So
what the network is trained on, from a store in eight bits, and what it is served are the same bits.

Shapes: n samples, t frames = 1 + n // hop_samples, m mel bands. Three seconds are 130 frames.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray

from needledrop.artifacts import fingerprint_of_json
from needledrop.audio.eight_bits import EightBits
from needledrop.errors import ConfigRejected, ShapeMismatch

LogMelDtype = Literal["float16", "uint8"]
N_MFCCS = 13
_POWER_FLOOR = 1e-10


@dataclass(frozen=True)
class FrontendConfig:
    """The mel spectrogram; change it here and retrain, nothing else knows these numbers.

    Attributes:
        sample_rate_hz: of the mono waveform.
        window_samples: of the short-time Fourier transform (Hann).
        hop_samples: from one frame to the next.
        n_mels: m, bands.
        f_min_hz: lower edge of the lowest band.
        f_max_hz: upper edge of the highest band.
        log_gain: of the compression log(1 + log_gain * power).
        window_seconds: length of what the network sees at once.
        log_mel_dtype: what log-mel is stored in: ``uint8``, of which it keeps 256 levels for each
            band; or ``float16``, twice the bytes.
    """

    sample_rate_hz: int = 22_050
    window_samples: int = 1024
    hop_samples: int = 512
    n_mels: int = 128
    f_min_hz: float = 0.0
    f_max_hz: float = 11_025.0
    log_gain: float = 100.0
    window_seconds: float = 3.0
    log_mel_dtype: LogMelDtype = "uint8"

    def __post_init__(self) -> None:
        if not 0 < self.hop_samples <= self.window_samples <= self.sample_rate_hz:
            raise ConfigRejected(
                "frontend: expected 0 < hop_samples <= window_samples <= sample_rate_hz, got "
                f"{self.hop_samples}, {self.window_samples}, {self.sample_rate_hz}"
            )
        if not N_MFCCS <= self.n_mels <= self.window_samples // 2:
            raise ConfigRejected(
                f"frontend.n_mels: expected {N_MFCCS} to {self.window_samples // 2}, "
                f"got {self.n_mels}"
            )
        if not 0 <= self.f_min_hz < self.f_max_hz <= self.sample_rate_hz / 2:
            raise ConfigRejected(
                "frontend: expected 0 <= f_min_hz < f_max_hz <= half the sample rate, got "
                f"{self.f_min_hz} and {self.f_max_hz}"
            )
        if not self.log_gain > 0:
            raise ConfigRejected(f"frontend.log_gain: expected a number > 0, got {self.log_gain}")
        if not self.window_seconds * self.sample_rate_hz >= self.window_samples:
            raise ConfigRejected(
                "frontend.window_seconds: expected at least one spectral window, "
                f"got {self.window_seconds}"
            )
        if self.log_mel_dtype not in get_args(LogMelDtype):
            raise ConfigRejected(
                f"frontend.log_mel_dtype: expected float16 or uint8, got {self.log_mel_dtype!r}"
            )

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> "FrontendConfig":
        """Return the front end of a bundle or a manifest; the older ones knew float16 alone."""
        return cls(**{"log_mel_dtype": "float16", **settings})

    @property
    def window_frames(self) -> int:
        """Frames in ``window_seconds``: 130 by default."""
        return 1 + round(self.window_seconds * self.sample_rate_hz) // self.hop_samples

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the settings; features and encoders carry it, so that they can't be mixed."""
        settings = asdict(self)
        if self.log_mel_dtype == "float16":  # which was all there was, and is still the same
            del settings["log_mel_dtype"]
        return fingerprint_of_json(settings)


class ClipFeatures(NamedTuple):
    """What the front end hears in a clip.

    Attributes:
        log_mel: (t, m) float16, on the levels of eight bits where these are stored.
        mfcc: (t, 13) float16.
    """

    log_mel: NDArray[np.float16]
    mfcc: NDArray[np.float16]


@lru_cache(maxsize=16)
def eight_bits(config: FrontendConfig) -> EightBits:
    """Return the levels of a front end's mel bands."""
    mel_power = _mel_power(config)
    return EightBits.of(
        mel_power.spectrogram.window.double().numpy(),
        mel_power.mel_scale.fb.double().numpy(),
        config.log_gain,
    )


def _mel_power(config: FrontendConfig) -> torchaudio.transforms.MelSpectrogram:
    return torchaudio.transforms.MelSpectrogram(
        sample_rate=config.sample_rate_hz,
        n_fft=config.window_samples,
        hop_length=config.hop_samples,
        f_min=config.f_min_hz,
        f_max=config.f_max_hz,
        n_mels=config.n_mels,
        mel_scale="slaney",
        norm="slaney",
    )


class Frontend:
    """Computes features; build it once, it holds the filter bank."""

    def __init__(self, config: FrontendConfig | None = None) -> None:
        self.config = config or FrontendConfig()
        self._mel_power = _mel_power(self.config)
        self._cosines = torchaudio.functional.create_dct(N_MFCCS, self.config.n_mels, norm="ortho")

    def features(self, waveform: NDArray[np.float32]) -> ClipFeatures:
        """Return log-mel and MFCCs of a waveform.

        Args:
            waveform: (n,) float32 mono at the configured sample rate, full scale 1.

        Raises:
            ShapeMismatch: not one-dimensional, or shorter than one spectral window.
        """
        power = self._power(waveform)
        decibels = 10.0 * torch.log10(power.clamp_min(_POWER_FLOOR))
        return ClipFeatures(self._compressed(power), _as_float16(decibels @ self._cosines))

    def log_mel(self, waveform: NDArray[np.float32]) -> NDArray[np.float16]:
        """Return (t, m) float16 log-mel alone; arguments and errors as in :meth:`features`."""
        return self._compressed(self._power(waveform))

    def as_kept(self, log_mel: NDArray[np.float16]) -> NDArray[np.float16]:
        """Return (t, m) finite log-mel rounded as :meth:`features` does; its own stays as it is."""
        if self.config.log_mel_dtype == "float16":
            return log_mel
        return eight_bits(self.config).rounded(log_mel)

    def n_beyond_full_scale(self, log_mel: NDArray[np.float16]) -> int:
        """Return how many of (t, m) values, as :meth:`features` gives them, eight bits cut off."""
        if self.config.log_mel_dtype == "float16":
            return 0
        return eight_bits(self.config).n_beyond(log_mel)

    def _power(self, waveform: NDArray[np.float32]) -> torch.Tensor:
        if waveform.ndim != 1 or len(waveform) < self.config.window_samples:
            raise ShapeMismatch(
                f"expected a mono waveform of at least {self.config.window_samples} samples, "
                f"got shape {waveform.shape}; decode it with decode_clip"
            )
        with torch.inference_mode():
            mel: torch.Tensor = self._mel_power(torch.from_numpy(waveform))  # (m, t)
        return mel.T

    def _compressed(self, power: torch.Tensor) -> NDArray[np.float16]:
        return self.as_kept(_as_float16(torch.log1p(self.config.log_gain * power)))


def _as_float16(values: torch.Tensor) -> NDArray[np.float16]:
    array: NDArray[np.float16] = values.to(torch.float16).contiguous().numpy()
    return array
