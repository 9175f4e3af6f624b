"""What one request, and all requests together, may ask of the server."""

from dataclasses import dataclass

from needledrop.audio.decode import DecodeLimits
from needledrop.errors import ConfigRejected

MIB = 1 << 20


@dataclass(frozen=True)
class ServingLimits:
    """The server's limits; each is refused with one sentence, before the work that it bounds.

    Attributes:
        max_body_bytes: of an HTTP body or a gRPC message; a longer one is never held in memory.
        max_upload_seconds: for a body to arrive.
        max_uploads: bodies that are arriving at once, for each of HTTP and gRPC; where there are
            more, the one that has taken the longest is ended.
        max_upload_bytes: of unfinished HTTP bodies, all together; the same holds.
        max_idle_seconds: of a gRPC connection without a call; a client takes a new one by itself.
        max_request_seconds: from a body that has arrived to the answer; what has not been begun by
            then isn't begun any more.
        max_clip_seconds: of decoded audio per clip.
        max_sample_rate_hz: of an audio file.
        max_channels: of an audio file.
        max_decoded_ratio: bytes of samples (32 bits each) for one byte of an audio file. Speech at
            6 kbit/s has 256, a file that unpacks silence for hours has ten thousands.
        max_clips: per request.
        max_n_nearest: songs asked for per clip.
        max_members: listeners or songs per request.
        max_k: the longest page of a ranked list.
        max_offset: the most that may come before a page.
        max_liked: liked songs of one listener.
        max_in_flight: requests that are being answered at once, for each of HTTP and gRPC; with
            ``max_body_bytes`` it bounds the memory that their bodies take.
    """

    max_body_bytes: int = 32 * MIB
    max_upload_seconds: float = 30.0
    max_uploads: int = 64
    max_upload_bytes: int = 256 * MIB
    max_idle_seconds: float = 300.0
    max_request_seconds: float = 30.0
    max_clip_seconds: float = 120.0
    max_sample_rate_hz: int = 192_000
    max_channels: int = 8
    max_decoded_ratio: float = 1000.0
    max_clips: int = 16
    max_n_nearest: int = 100
    max_members: int = 64
    max_k: int = 500
    max_offset: int = 10_000
    max_liked: int = 500
    max_in_flight: int = 32

    def __post_init__(self) -> None:
        for name, least in (
            ("max_body_bytes", 1024),
            ("max_upload_seconds", 0.1),
            ("max_uploads", 1),
            ("max_upload_bytes", self.max_body_bytes),
            ("max_idle_seconds", 1.0),
            ("max_clip_seconds", DecodeLimits().min_seconds),
            ("max_request_seconds", 0.1),
            ("max_sample_rate_hz", 8000),
            ("max_channels", 1),
            ("max_decoded_ratio", 1.0),
            ("max_clips", 1),
            ("max_n_nearest", 1),
            ("max_members", 1),
            ("max_k", 1),
            ("max_offset", 0),
            ("max_liked", 1),
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
        return DecodeLimits(
            max_seconds=self.max_clip_seconds,
            max_channels=self.max_channels,
            max_sample_rate_hz=self.max_sample_rate_hz,
            max_bytes=self.max_body_bytes,
            max_ratio=self.max_decoded_ratio,
        )
