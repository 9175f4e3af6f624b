"""What the server tells Prometheus, beside KServe's own metrics, on ``GET /metrics``.

Base units, one prefix, and no label whose values a client chooses: no user and no song, and of the
models only those that are served; a request for another one, or refused before its model is known,
counts for the model "none".
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from needledrop.encoders.drift import FEWEST_SONGS, DriftWindow
from needledrop.factors.sources import AUDIO, USAGE
from serving import tracing
from serving.refusals import STATUS_OF_KIND

PROTOCOLS = ("v1", "v2", "grpc")
NO_MODEL = "none"
CACHES = (
    "collections",
    "bundle_copies",
    "page_answer",
    "page_map",
    "page_names",
    "page_clips",
    "api_keys",
    "jwt_keys",
    "front_ends",
    "parameters",
    "s3_clients",
)
SIZED_CACHES = ("collections", "bundle_copies", "page_answer", "page_names")
STAGES = ("parse", "decode", "frontend", "network", "nearest", "score", "store")
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

REQUESTS = Counter(
    "needledrop_requests_total",
    "Predictions asked for, answered or refused.",
    ["model", "protocol"],
)
ERRORS = Counter("needledrop_errors_total", "Requests refused, by kind.", ["model", "kind"])
REQUEST_SECONDS = Histogram(
    "needledrop_request_duration_seconds",
    "From a request that has arrived whole to its answer or refusal.",
    ["model", "protocol"],
    buckets=_BUCKETS,
)
STAGE_SECONDS = Histogram(
    "needledrop_stage_duration_seconds",
    "Time in one stage: parse and nearest of a request; decode and frontend of a clip; network of "
    "a batch of clips; score of a batch of listeners; store of a new song.",
    ["stage"],
    buckets=_BUCKETS,
)
CLIPS = Counter("needledrop_clips_total", "Clips encoded, by what came in.", ["source"])
BATCH_CLIPS = Histogram(
    "needledrop_batch_clips",
    "Clips that went through the network together.",
    buckets=(1, 2, 4, 8, 16, 32),
)
BATCH_WISHES = Histogram(
    "needledrop_batch_wishes",
    "Listeners whose songs were scored together.",
    buckets=(1, 2, 4, 8, 16, 32),
)
LISTENERS_ASKED = Counter("needledrop_listeners_asked_total", "Listeners whose songs were wanted.")
SONGS_RECOMMENDED = Counter(
    "needledrop_songs_recommended_total",
    "Songs in listeners' lists, by where their factors are from: usage or audio.",
    ["source"],
)
FALLBACKS = Counter(
    "needledrop_fallbacks_total", "Listeners who weren't known, by what spoke for them.", ["kind"]
)
SONGS = Gauge("needledrop_collection_songs", "Songs that can be asked about.")
LISTENERS = Gauge("needledrop_collection_listeners", "Listeners that are known.")
SONGS_ADDED = Counter("needledrop_songs_added_total", "New songs that were stored from here.")
STORE_READS = Counter(
    "needledrop_store_reads_total",
    "Looks at the feature store that brought something new, or failed.",
    ["outcome"],
)
STORE_UNSEEN_SECONDS = Gauge(
    "needledrop_store_unseen_seconds", "How long ago the feature store was last seen."
)
PREDICTOR_AWAY = Gauge(
    "needledrop_predictor_away",
    "1 while a transformer's predictor doesn't answer or has no champion, so that clips are "
    "refused.",
)
AUDIO_SECONDS = Counter("needledrop_audio_seconds_total", "Audio decoded, in seconds of music.")
CLIPS_BEYOND_FULL_SCALE = Counter(
    "needledrop_clips_beyond_full_scale_total",
    "Clips with log-mel louder than full scale, which eight bits cut: samples beyond -1 and 1.",
)
VALUES_BEYOND_FULL_SCALE = Counter(
    "needledrop_values_beyond_full_scale_total",
    "Values of their log-mel that were cut; of training clips extract-features tells the same.",
)
IN_FLIGHT = Gauge("needledrop_requests_in_flight", "Predictions being answered now.")
HTTP_IN_FLIGHT = Gauge(
    "needledrop_http_in_flight", "HTTP requests with a body that are being answered now."
)
UPLOADS = Gauge("needledrop_uploads", "Bodies that are arriving now.", ["protocol"])
REGISTRY_POLLS = Counter("needledrop_registry_polls_total", "Looks for a new champion.")
BUNDLE_INFO = Gauge(
    "needledrop_bundle_info",
    "1 for the bundle that answers.",
    ["bundle", "encoder", "n_factors", "n_songs"],
)
ENGINE_INFO = Gauge(
    "needledrop_engine_info",
    "1 for what runs the network of the bundle that answers: onnx or eager.",
    ["bundle", "engine"],
)
ENGINE_REFUSALS = Counter(
    "needledrop_engine_refusals_total",
    "Champions that answer by torch, as a faster engine failed or did not agree with it.",
)
BUNDLE_LOADED = Gauge(
    "needledrop_bundle_loaded_timestamp_seconds", "When the bundle that answers was loaded."
)
BUNDLES_HELD = Gauge(
    "needledrop_bundles_held",
    "Bundles in memory: the one that answers, and old ones until their last request has ended.",
)
CACHE_ENTRIES = Gauge(
    "needledrop_cache_entries",
    "What is kept between requests, by cache; serving/README.md says how much may be, and how "
    "long.",
    ["cache"],
)
CACHE_BYTES = Gauge(
    "needledrop_cache_bytes",
    "How much of memory or disk it takes, of caches whose entries may be large.",
    ["cache"],
)
DRIFT = Gauge(
    "needledrop_factor_drift",
    "Population stability index of the last predicted songs' factors against songs like the "
    "training's, averaged over factors; NaN for few songs, absent where the bundle has no "
    "reference.",
    ["bundle"],
)
DRIFT_BY_CHANCE = Gauge(
    "needledrop_factor_drift_by_chance",
    "What the index reads on average for as many songs where nothing has drifted.",
    ["bundle"],
)
DRIFT_SONGS = Gauge(
    "needledrop_factor_drift_songs", "Different songs that the index is of.", ["bundle"]
)
BUNDLE_LOADS = Counter(
    "needledrop_bundle_loads_total",
    "Champions loaded, found broken, refused after a rehearsal, or out of reach.",
    ["outcome"],
)

# A series that is there from the start can be rated and alerted on from its first event.
for _protocol in PROTOCOLS:
    REQUESTS.labels(NO_MODEL, _protocol)
for _transport in ("http", "grpc"):
    UPLOADS.labels(_transport)
for _kind in STATUS_OF_KIND:
    ERRORS.labels(NO_MODEL, _kind)
for _stage in STAGES:
    STAGE_SECONDS.labels(_stage)
for _source in ("audio", "log_mel"):
    CLIPS.labels(_source)
for _origin in (USAGE, AUDIO):
    SONGS_RECOMMENDED.labels(_origin)
for _kind_of_fallback in ("liked_songs", "popularity"):
    FALLBACKS.labels(_kind_of_fallback)
for _read in ("whole", "part", "unreachable", "broken"):
    STORE_READS.labels(_read)
for _cache in CACHES:
    CACHE_ENTRIES.labels(_cache)
for _cache in SIZED_CACHES:
    CACHE_BYTES.labels(_cache)
for _outcome in ("loaded", "broken", "refused", "unreachable"):
    BUNDLE_LOADS.labels(_outcome)


_MODELS: set[str] = set()


def announce_model(name: str) -> None:
    """Make the series of a model that is served."""
    _MODELS.add(name)
    for protocol in PROTOCOLS:
        REQUESTS.labels(name, protocol)
        REQUEST_SECONDS.labels(name, protocol)
    for kind in STATUS_OF_KIND:
        ERRORS.labels(name, kind)


def model_label(name: str) -> str:
    """Return a model's label: its name where it is served, as a client may name anything."""
    return name if name in _MODELS else NO_MODEL


@contextmanager
def stage(name: str, asked_by: Sequence[Any] = ()) -> Iterator[None]:
    """Time and trace one stage; a stage that is refused counts too.

    Args:
        name: one of :data:`STAGES`.
        asked_by: the spans that it is done for, where that isn't the current one.
    """
    with STAGE_SECONDS.labels(name).time(), tracing.span(name, asked_by):
        yield


def tell_bundle(fingerprint: str, encoder: str, n_factors: int, n_songs: int, engine: str) -> None:
    """Say which bundle answers from now on, and what runs its network."""
    ENGINE_INFO.clear()
    ENGINE_INFO.labels(fingerprint, engine).set(1)
    BUNDLE_INFO.clear()
    BUNDLE_INFO.labels(fingerprint, encoder, str(n_factors), str(n_songs)).set(1)
    BUNDLE_LOADED.set(time.time())
    BUNDLE_LOADS.labels("loaded").inc()


def tell_cache(name: str, n_entries: int, n_bytes: int | None = None) -> None:
    """Tell how much a cache holds from now on.

    Args:
        name: one of :data:`CACHES`.
        n_entries: whatever its entries are.
        n_bytes: of one of :data:`SIZED_CACHES`.
    """
    CACHE_ENTRIES.labels(name).set(n_entries)
    if n_bytes is not None:
        CACHE_BYTES.labels(name).set(n_bytes)


def tell_drift(fingerprint: str, window: DriftWindow | None) -> None:
    """Tell from now on how far this window has moved; nothing where there is none."""
    for gauge in (DRIFT, DRIFT_BY_CHANCE, DRIFT_SONGS):
        gauge.clear()
    if window is None:
        return

    def told(value: Callable[[DriftWindow], float]) -> Callable[[], float]:
        return lambda: value(window) if len(window) >= FEWEST_SONGS else math.nan

    DRIFT.labels(fingerprint).set_function(told(lambda one: one.index))
    DRIFT_BY_CHANCE.labels(fingerprint).set_function(told(lambda one: one.index_by_chance))
    DRIFT_SONGS.labels(fingerprint).set_function(lambda: len(window))
