"""What Prometheus scrapes from the predictor."""

import base64
import re
from pathlib import Path

import prometheus_client
from prometheus_client.parser import text_string_to_metric_families

from needledrop.audio.extraction import ExtractionConfig, extract_features
from needledrop.encoders.bundle import Bundle
from serving import metrics
from tests.serving.world import (
    N_FACTORS,
    N_SONGS,
    PREDICT,
    Server,
    float_wav_bytes,
    waveform,
)


def test_the_manual_names_every_metric_and_stage_and_no_other() -> None:
    manual = (Path(__file__).parents[2] / "serving" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(needledrop_\w+)` \|(.*)$", manual, flags=re.MULTILINE)
    known = {
        one._name + ("_total" if isinstance(one, prometheus_client.Counter) else "")
        for one in vars(metrics).values()
        if isinstance(one, prometheus_client.metrics.MetricWrapperBase)
    }
    assert {name for name, _ in rows} == known
    stages = re.match(r" `stage`: ([\w, ]+)", dict(rows)["needledrop_stage_duration_seconds"])
    assert stages
    assert tuple(stages[1].strip().split(", ")) == metrics.STAGES


def test_the_manual_has_a_row_for_every_cache_and_a_metric_in_each() -> None:
    manual = (Path(__file__).parents[2] / "serving" / "README.md").read_text(encoding="utf-8")
    _, _, after = manual.partition("## What is kept\n")
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", after.partition("\n## ")[0], flags=re.MULTILINE)
    told = {name: cells.split("|")[-1] for name, cells in rows}
    assert set(told) == {*metrics.CACHES, "bundles", "drift"}
    entries = {name for name, metric in told.items() if metric.strip().startswith("entries")}
    assert entries == set(metrics.CACHES)
    assert {name for name in entries if "bytes" in told[name]} == set(metrics.SIZED_CACHES)
    assert all(all(cell.strip() for cell in cells.split("|")) for _, cells in rows)


def test_requests_errors_and_stages_are_counted(server: Server, wav: bytes) -> None:
    def figures() -> dict[str, float]:
        stages = ("parse", "decode", "frontend", "nearest")
        return {
            "requests": server.metric("needledrop_requests_total", protocol="v1"),
            "not_audio": server.metric("needledrop_errors_total", kind="not_audio"),
            "seconds": server.metric("needledrop_audio_seconds_total"),
            "clips": server.metric("needledrop_clips_total", source="audio"),
            "timed": server.metric("needledrop_request_duration_seconds_count", protocol="v1"),
        } | {
            stage: server.metric("needledrop_stage_duration_seconds_count", stage=stage)
            for stage in stages
        }

    before = figures()
    audio = base64.b64encode(wav).decode()
    assert server.post(PREDICT, {"instances": [{"audio": audio}] * 3}).status == 200
    assert server.post(PREDICT, {"instances": [{"audio": "QUJDREVGR0g="}]}).status == 400
    after = figures()
    # Seconds of audio are a sum of floats, and other tests have added to it.
    assert {name: round(after[name] - before[name], 6) for name in after} == {
        "requests": 2,
        "timed": 2,
        "not_audio": 1,
        "clips": 3,
        "seconds": 12,
        "parse": 2,
        "decode": 4,
        "frontend": 3,
        "nearest": 1,
    }
    assert server.metric("needledrop_requests_in_flight") == 0


def test_clips_beyond_full_scale_are_counted_as_extraction_counts_them(
    server: Server, bundle: Bundle, tmp_path: Path
) -> None:
    names = [f"needledrop_{what}_beyond_full_scale_total" for what in ("clips", "values")]

    def counts_after(*clips: bytes) -> list[float]:
        before = [server.metric(name) for name in names]
        instances = [{"audio": base64.b64encode(clip).decode()} for clip in clips]
        assert server.post(PREDICT, {"instances": instances}).status == 200
        return [server.metric(name) - old for name, old in zip(names, before, strict=True)]

    loud = float_wav_bytes(40 * waveform(4))
    (tmp_path / "loud.wav").write_bytes(loud)
    config = ExtractionConfig(n_processes=1)
    extracted = extract_features(
        {"SO": tmp_path / "loud.wav"}, tmp_path / "shards", tmp_path / "features.json", config
    )
    assert extracted.n_beyond_full_scale > 0
    assert counts_after(float_wav_bytes(waveform(4)), loud) == [1, extracted.n_beyond_full_scale]
    log_mel = extracted["SO"].log_mel.tolist()
    before = server.metric(names[1])
    assert server.post(PREDICT, {"instances": [{"log_mel": log_mel}]}).status == 200
    assert server.metric(names[1]) - before == extracted.n_beyond_full_scale


def test_the_bundle_that_answers_is_named(server: Server, bundle: Bundle) -> None:
    told = server.metric(
        "needledrop_bundle_info",
        bundle=bundle.fingerprint,
        encoder="cnn",
        n_factors=str(N_FACTORS),
        n_songs=str(N_SONGS),
    )
    assert told == 1


def test_names_have_base_units_and_labels_have_no_ids(server: Server, bundle: Bundle) -> None:
    text = server.get("/metrics").body.decode()
    ours = [
        family
        for family in text_string_to_metric_families(text)
        if family.name.startswith("needledrop_") and not family.name.endswith("_created")
    ]
    assert {family.name for family in ours} == {
        "needledrop_requests",
        "needledrop_errors",
        "needledrop_request_duration_seconds",
        "needledrop_stage_duration_seconds",
        "needledrop_clips",
        "needledrop_audio_seconds",
        "needledrop_clips_beyond_full_scale",
        "needledrop_values_beyond_full_scale",
        "needledrop_requests_in_flight",
        "needledrop_bundle_info",
        "needledrop_engine_info",
        "needledrop_engine_refusals",
        "needledrop_bundle_loaded_timestamp_seconds",
        "needledrop_bundle_loads",
        "needledrop_batch_wishes",
        "needledrop_bundles_held",
        "needledrop_collection_listeners",
        "needledrop_collection_songs",
        "needledrop_fallbacks",
        "needledrop_listeners_asked",
        "needledrop_songs_added",
        "needledrop_store_reads",
        "needledrop_store_unseen_seconds",
        "needledrop_predictor_away",
        "needledrop_registry_polls",
        "needledrop_http_in_flight",
        "needledrop_uploads",
        "needledrop_factor_drift",
        "needledrop_factor_drift_by_chance",
        "needledrop_factor_drift_songs",
        "needledrop_songs_recommended",
        "needledrop_batch_clips",
        "needledrop_cache_entries",
        "needledrop_cache_bytes",
    }
    labels = {label for family in ours for sample in family.samples for label in sample.labels}
    assert labels == {
        "model", "protocol", "kind", "stage", "source", "outcome", "le",
        "bundle", "encoder", "engine", "n_factors", "n_songs", "cache",
    }  # fmt: skip
    for song_id in bundle.catalogue.song_ids:
        assert song_id not in text
    assert "request_predict_seconds" in text  # KServe's own are there too


def test_every_kind_of_error_is_there_from_the_start(server: Server) -> None:
    text = server.get("/metrics").body.decode()
    for kind in ("internal", "no_champion", "too_long", "body_too_large", "unreadable"):
        for model in ("latent-factors", "none"):
            assert f'needledrop_errors_total{{kind="{kind}",model="{model}"}}' in text


def test_the_log_has_one_json_object_a_line_and_no_payload(server: Server, wav: bytes) -> None:
    secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQ="
    server.post(PREDICT, {"instances": [{"audio": secret, secret: 1}]})
    events = server.events()
    assert (
        events[-1].items()
        >= {
            "event": "refused",
            "kind": "unknown_field",
            "status": 400,
            "protocol": "v1",
            "model": "latent-factors",
        }.items()
    )
    assert secret not in server.log.read_text()
    answered = len(events)
    audio = base64.b64encode(wav).decode()
    assert server.post(PREDICT, {"instances": [{"audio": audio}]}).status == 200
    assert len(server.events()) == answered  # no access log unless asked for
