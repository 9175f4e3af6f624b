"""What the predictor tells Prometheus, beside KServe's own metrics, on ``GET /metrics``.

Base units, one prefix, and no label whose values a client chooses: no user, song or model name.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram

from serving.refusals import STATUS_OF_KIND

PROTOCOLS = ("v1", "v2", "grpc")
STAGES = ("parse", "decode", "frontend", "network", "nearest")
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

REQUESTS = Counter(
    "needledrop_requests_total", "Predictions asked for, answered or refused.", ["protocol"]
)
ERRORS = Counter("needledrop_errors_total", "Requests refused, by kind.", ["kind"])
REQUEST_SECONDS = Histogram(
    "needledrop_request_duration_seconds",
    "From a request that has arrived whole to its answer or refusal.",
    ["protocol"],
    buckets=_BUCKETS,
)
STAGE_SECONDS = Histogram(
    "needledrop_stage_duration_seconds",
    "Time in one stage: parse and nearest of a request; decode, frontend and network of a clip.",
    ["stage"],
    buckets=_BUCKETS,
)
CLIPS = Counter("needledrop_clips_total", "Clips encoded, by what came in.", ["source"])
AUDIO_SECONDS = Counter("needledrop_audio_seconds_total", "Audio decoded, in seconds of music.")
IN_FLIGHT = Gauge("needledrop_requests_in_flight", "Predictions being answered now.")
BUNDLE_INFO = Gauge(
    "needledrop_bundle_info",
    "1 for the bundle that answers.",
    ["bundle", "encoder", "n_factors", "n_songs"],
)
BUNDLE_LOADED = Gauge(
    "needledrop_bundle_loaded_timestamp_seconds", "When the bundle that answers was loaded."
)
BUNDLE_LOADS = Counter(
    "needledrop_bundle_loads_total", "Champions loaded, found broken, or out of reach.", ["outcome"]
)

# A series that is there from the start can be rated and alerted on from its first event.
for _protocol in PROTOCOLS:
    REQUESTS.labels(_protocol)
    REQUEST_SECONDS.labels(_protocol)
for _kind in STATUS_OF_KIND:
    ERRORS.labels(_kind)
for _stage in STAGES:
    STAGE_SECONDS.labels(_stage)
for _source in ("audio", "log_mel"):
    CLIPS.labels(_source)
for _outcome in ("loaded", "broken", "unreachable"):
    BUNDLE_LOADS.labels(_outcome)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time one stage; a stage that is refused counts too."""
    with STAGE_SECONDS.labels(name).time():
        yield


def tell_bundle(fingerprint: str, encoder: str, n_factors: int, n_songs: int) -> None:
    """Say which bundle answers from now on."""
    BUNDLE_INFO.clear()
    BUNDLE_INFO.labels(fingerprint, encoder, str(n_factors), str(n_songs)).set(1)
    BUNDLE_LOADED.set(time.time())
    BUNDLE_LOADS.labels("loaded").inc()
