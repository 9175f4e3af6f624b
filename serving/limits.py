"""What one request, and all requests together, may ask of the predictor."""

from dataclasses import dataclass

from needledrop.audio.decode import DecodeLimits
from needledrop.errors import ConfigRejected

MIB = 1 << 20


@dataclass(frozen=True)
class ServingLimits:
    """The predictor's limits; each is refused with one sentence, before the work that it bounds.

    Attributes:
        max_body_bytes: of an HTTP body or a gRPC message; a longer one is never held in memory.
        max_upload_seconds: for an HTTP body to arrive.
        max_clip_seconds: of decoded audio per clip.
        max_clips: per request.
        max_n_nearest: songs asked for per clip.
        max_in_flight: requests that are being read or answered at once, for each of HTTP and gRPC;
            with ``max_body_bytes`` it bounds the memory that bodies take.
    """

    max_body_bytes: int = 32 * MIB
    max_upload_seconds: float = 30.0
    max_clip_seconds: float = 120.0
    max_clips: int = 16
    max_n_nearest: int = 100
    max_in_flight: int = 32

    def __post_init__(self) -> None:
        for name, least in (
            ("max_body_bytes", 1024),
            ("max_upload_seconds", 0.1),
            ("max_clip_seconds", DecodeLimits().min_seconds),
            ("max_clips", 1),
            ("max_n_nearest", 1),
            ("max_in_flight", 1),
        ):
            value = getattr(self, name)
            if not value >= least:
                raise ConfigRejected(f"{name}: expected at least {least}, got {value}")
        if self.max_body_bytes > (1 << 31) - 1:
            raise ConfigRejected(
                f"max_body_bytes: expected less than 2 GiB, gRPC's own limit, "
                f"got {self.max_body_bytes}"
            )

    @property
    def decode_limits(self) -> DecodeLimits:
        """What an encoded clip may be."""
        return DecodeLimits(max_seconds=self.max_clip_seconds, max_bytes=self.max_body_bytes)
