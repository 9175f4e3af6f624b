"""The whole pipeline, with kfp's own runner, on a catalogue whose tastes can be heard."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from components.journal import MARK
from feature_repo.store import FactorStore
from needledrop.audio.feature_store import FeatureStore
from needledrop.encoders.bundle import Bundle
from needledrop.plays.tracks import read_tracks
from needledrop.plays.triplets import read_plays
from needledrop.promotion.registry import Registry
from pipelines.__main__ import main
from pipelines.local_run import RunFailed, _times_in, run_locally
from pipelines.terminal import Terminal
from pipelines.train import train_pipeline
from tests.full_disk import full_disk
from tests.pipelines.conftest import N_SONGS, N_USERS, QUICK, ROOT, call, command


def steps_of(out: Path) -> set[str]:
    """The steps of the last run that ended well."""
    last = sorted((out / "artifacts").iterdir())[-1]
    return {path.parent.name for path in last.glob("*/*/executor_output.json")}


@pytest.fixture(scope="module")
def promoted(catalogue, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A run that was killed while it trained, and the same command again."""
    out = tmp_path_factory.mktemp("run") / "out"
    arguments = ["run", "train", "--data", str(catalogue), "--out", str(out)]
    killed = subprocess.Popen(
        command(*arguments, **QUICK),
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 480
    while not list((out / "workspace" / "checkpoints").glob("*.pt")):
        assert killed.poll() is None, (out / "run.log").read_text()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(RunFailed, match="another run is at work"):
        run_locally(train_pipeline, {}, out)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert Registry(out / "registry").champion() is None
    return out, call("run", "train", "--data", catalogue, "--out", out, **QUICK)


def test_a_killed_run_finishes_when_it_is_started_again(promoted):
    out, done = promoted
    assert done.returncode == 0, done.stdout + done.stderr
    assert "deploy-predictor" in steps_of(out)
    assert "Traceback" not in done.stdout + done.stderr
    log = (out / "run.log").read_text()
    assert f"{N_SONGS - 1} clips heard, 1 rejected" in log
    assert re.search(r"rejected: the first is \S*TR005\.wav: expected .*; the report", log), log
    assert "plan-shards" not in log
    assert "hear-shard" not in log


def test_what_it_says_is_for_people(promoted):
    _, done = promoted
    for words in (
        "validate-plays",
        "2 clips have no plays",
        "1 rejected",
        "mAP@500",
        "oracle",
        "passed  beats linear",
        "champion:",
        "promoted after",
    ):
        assert words in done.stdout, words
    assert "KFP Executor" not in done.stdout


def test_the_champion_is_whole_and_names_its_origin(promoted):
    out, _ = promoted
    registry = Registry(out / "registry")
    bundle = Bundle.load(registry.bundle_path(registry.champion()))
    assert bundle.version == registry.champion()
    assert bundle.about["split"] == {"kind": "random", "seed": 0}
    assert len(bundle.about["data_fingerprint"]) == 64
    folder = registry.champion_path()
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["promoted"] is True
    assert {"beats random", "beats linear"} <= {check["name"] for check in verdict["checks"]}
    card = (folder / "MODEL_CARD.md").read_text()
    assert "mAP@500" in card
    assert (out / "report" / "model_card.md").read_text() == card  # what the step puts out


def test_the_evaluation_ranks_sound_above_chance_and_usage_above_all(promoted):
    out, _ = promoted
    models = json.loads((out / "report" / "evaluation.json").read_text())["models"]
    score = {name: model["metrics"]["map_500"]["mean"] for name, model in models.items()}
    # Two words can't tell the drones apart, so the linear baseline is no better than chance here.
    assert max(score["random"], score["linear"]) < score["cnn"] < score["oracle"]


def test_new_songs_are_calibrated_and_the_report_says_what_that_does(promoted):
    out, done = promoted
    registry = Registry(out / "registry")
    bundle = Bundle.load(registry.bundle_path(registry.champion()))
    assert bundle.about["stretch"] == bundle.encoder.scaler.stretch != 1.0
    mixed = json.loads((out / "report" / "evaluation.json").read_text())["new_among_known"]
    assert list(mixed["shares_in_lists"]) == ["as predicted", "calibrated"]
    assert 0 < mixed["share_of_plays"] < 1
    assert "test songs among known ones" in done.stdout
    assert "New songs among known ones" in (out / "report" / "evaluation.html").read_text()
    for encoder in ("cnn", "linear"):
        assert "multiplied by" in (out / "report" / f"training_{encoder}.html").read_text()


def test_all_songs_and_listeners_are_online_with_their_source(promoted):
    out, _ = promoted
    registry = Registry(out / "registry")
    bundle = Bundle.load(registry.bundle_path(registry.champion()))
    store = FactorStore.open(out / "store")
    assert store.online_version("song_factors") == bundle.fingerprint
    catalogue = bundle.catalogue
    online = store.online_song_factors(catalogue.song_ids, version=bundle.fingerprint)
    assert online.present.all()
    np.testing.assert_array_equal(online.factors, catalogue.song_factors)
    assert online.sources.tolist() == catalogue.sources.tolist()
    assert (catalogue.sources == "audio").sum() == 2
    assert len(catalogue.song_ids) == N_SONGS
    users = store.online_user_factors([f"user{n:03}" for n in range(N_USERS)])
    assert users.present.all()


def test_plays_and_facts_are_published_with_them(promoted, catalogue):
    out, _ = promoted
    registry = Registry(out / "registry")
    bundle = Bundle.load(registry.bundle_path(registry.champion()))
    reading = FactorStore.open(out / "store").read_collection()
    songs, listeners = reading.collection.songs, reading.collection.listeners
    assert reading.collection.version == bundle.fingerprint
    assert songs.ids.tolist() == bundle.catalogue.song_ids.tolist()
    artist_of = read_tracks(str(catalogue / "tracks.csv")).tracks.artist_of()
    assert songs.artist_ids.tolist() == [artist_of.get(song, "") for song in songs.ids.tolist()]
    assert "" not in songs.artist_ids.tolist()
    plays = read_plays(str(catalogue / "plays.tsv")).plays
    assert listeners.ids.tolist() == plays.user_ids.tolist()
    assert listeners.played.sum() + reading.n_dropped_plays == plays.n_plays
    np.testing.assert_array_equal(listeners.played.sum(axis=0), songs.n_plays)
    assert (songs.n_plays[songs.sources == "audio"] == 0).all()


def test_every_report_stands_alone(promoted):
    out, _ = promoted
    pages = sorted((out / "report").glob("*.html"))
    assert [page.stem for page in pages] == [
        "clips",
        "evaluation",
        "factors",
        "training_cnn",
        "training_linear",
        "validation",
        "verdict",
    ]
    for page in pages:
        text = page.read_text()
        assert "<script src" not in text
        assert "http" not in text.replace("http://www.w3.org", "").replace("https://www.w3.org", "")


def test_times_of_steps_that_ran_at_once_are_not_counted_twice(tmp_path):
    # a: 0 to 10; b: 2 to 6 and 8 to 13 beside it; c alone, 20 to 21
    for number, (step, started, ended) in enumerate(
        [("a", 0, 10), ("b", 2, 6), ("b", 8, 13), ("c", 20, 21)]
    ):
        about = {"step": step, "ended": 1e9 + ended, "seconds": ended - started}
        (tmp_path / f"{step}.{number}.json").write_text(json.dumps(about))
    by_step, at_work = _times_in(tmp_path)
    assert by_step == {"a": 10, "b": 9, "c": 1}
    assert at_work == 14
    assert _times_in(tmp_path / "none") == ({}, 0.0)


def test_orchestration_is_a_small_part(promoted):
    out, _ = promoted
    run = json.loads((out / "report" / "run.json").read_text())
    assert max(run["step_seconds"].values()) < run["seconds_in_steps"] < run["seconds"]
    assert len(run["step_seconds"]) == 11


@pytest.fixture(scope="module")
def refused(promoted, catalogue) -> tuple[Path, str, dict, subprocess.CompletedProcess]:
    """A worse candidate, that hears all again, in shards: (out, champion, its report, words)."""
    out, _ = promoted
    champion = Registry(out / "registry").champion()
    earlier = json.loads((out / "report" / "evaluation.json").read_text())
    worse = {**QUICK, "n_epochs": 1, "learning_rate": 1e-6, "training_seed": 3}
    in_shards = {"n_feature_shards": 2, "workspace": out / "another workspace"}
    done = call("run", "train", "--data", catalogue, "--out", out, **worse, **in_shards)
    return out, champion, earlier, done


@pytest.mark.long
def test_a_worse_candidate_is_refused_and_kept(refused):
    out, champion, _, done = refused
    registry = Registry(out / "registry")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "deploy-predictor" not in steps_of(out)
    assert "decide-promotion" in steps_of(out)
    assert "FAILED  beats champion" in done.stdout
    assert registry.champion() == champion
    assert len(registry.versions()) == 2
    verdict = json.loads((out / "report" / "verdict.json").read_text())
    assert verdict["promoted"] is False


@pytest.mark.long
def test_a_catalogue_heard_in_shards_is_heard_and_judged_the_same(refused):
    """Each clip once, by one of the shards; what was trained on one pass scores as it did then."""
    out, _, earlier, done = refused
    heard = [int(n) for n in re.findall(r"shard \d of 2: (\d+) clips heard", done.stdout)]
    assert sum(heard) == N_SONGS
    assert min(heard) > 0
    one_pass, in_shards = (
        FeatureStore.open(
            next((out / "artifacts" / run).glob("*/extract-features/features/*.json"))
        )
        for run in sorted(path.name for path in (out / "artifacts").iterdir())[-2:]
    )
    assert in_shards.song_ids.tolist() == one_pass.song_ids.tolist()
    assert in_shards.location("SO000") != one_pass.location("SO000")
    for song_id in in_shards.song_ids.tolist():
        np.testing.assert_array_equal(in_shards[song_id].log_mel, one_pass[song_id].log_mel)
        np.testing.assert_array_equal(in_shards[song_id].mfcc, one_pass[song_id].mfcc)
    folders = sorted(path.name for path in (out / "another workspace" / "features").iterdir())
    assert folders == sorted({in_shards.location(one).split("/")[0] for one in in_shards.song_ids})
    before = earlier["models"]
    now = json.loads((out / "report" / "evaluation.json").read_text())["models"]
    assert now["champion"]["metrics"] == before["cnn"]["metrics"]
    for model in ("linear", "oracle", "random"):
        assert now[model]["metrics"] == before[model]["metrics"]


@pytest.mark.long
def test_a_champion_of_another_front_end_hears_the_songs_its_own_way(promoted, tmp_path):
    from components.evaluate_encoder.evaluating import evaluate_bundles
    from components.journal import Journal
    from needledrop.ranking.evaluate import EvaluationConfig

    out, _ = promoted
    registry = Registry(out / "registry")
    first = registry.path(registry.champion())
    steps = next(sorted((out / "artifacts").iterdir())[-1].glob("needledrop-train-*"))
    bundle = Bundle.load(first / "bundle")
    louder = replace(bundle, frontend=replace(bundle.frontend, log_gain=50.0))
    version = louder.save(tmp_path / "louder").version
    others = Registry(tmp_path / "registry")
    others.add(
        tmp_path / "louder", first / "evaluation.json", first / "verdict.json", version=version
    )
    others.promote(version, expected_champion=None)
    report, _roc = evaluate_bundles(
        first / "bundle",
        steps / "train-encoder" / "bundle",
        steps / "factorize-plays" / "factors",
        steps / "extract-features" / "features",
        steps / "validate-plays" / "accepted_plays",
        steps / "split-songs" / "split",
        tmp_path / "registry",
        tmp_path / "workspace",
        EvaluationConfig(n_resamples=100),
        Journal("evaluate_encoder"),
    )
    manifest = json.loads((tmp_path / "workspace" / "champion_features.json").read_text())
    assert manifest["frontend"]["log_gain"] == 50.0
    assert report.n_songs_known_to_champion == 0
    # Quieter features move the network's answers: the same weights no longer score the same.
    champion, candidate = (report.models[name].metrics["map_500"] for name in ("champion", "cnn"))
    assert champion.mean != candidate.mean
    assert candidate.mean == pytest.approx(
        json.loads((first / "evaluation.json").read_text())["models"]["cnn"]["metrics"]["map_500"][
            "mean"
        ]
    )


def test_a_rollback_brings_back_the_pointer_and_the_factors(promoted, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(promoted[0], out)
    registry = Registry(out / "registry")
    first = registry.champion()
    bundle = Bundle.load(registry.bundle_path(first))
    other = replace(bundle, about={**bundle.about, "note": "another"}).save(tmp_path / "other")
    folder = registry.path(first)
    registry.add(
        tmp_path / "other",
        folder / "evaluation.json",
        folder / "verdict.json",
        version=other.version,
    )
    store = FactorStore.open(out / "store")
    now = datetime.now(UTC)
    users = [f"user{n:03}" for n in range(N_USERS)]
    zeros = np.zeros((N_USERS, bundle.n_factors), np.float32)
    store.write_user_factors(users, zeros, version=other.fingerprint, at=now, online=True)
    songs = bundle.catalogue
    store.write_song_factors(
        songs.song_ids,
        songs.song_factors * 2,
        sources=songs.sources,
        version=other.fingerprint,
        at=now,
        online=True,
    )
    registry.promote(other.version, expected_champion=first)

    assert main(["rollback", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said == f"champion: {first} (rolled back from {other.version})\n"
    assert registry.champion() == first
    store = FactorStore.open(out / "store")
    online = store.online_song_factors(songs.song_ids, version=bundle.fingerprint)
    np.testing.assert_array_equal(online.factors, songs.song_factors)
    assert store.online_version("user_factors") == bundle.fingerprint


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "empty"),
        (b"u1\tSO000\n" * 5, "expected"),
        (b"\x00\x01\x02\xff" * 500, "expected"),
        (b"u1\tSO000\t0\n", "plays.tsv:1"),
        (b"u1\tSO000\t-3\n", "plays.tsv:1"),
        (b"u1\tSO000\tmany\n", "plays.tsv:1"),
        (b"u1\tSO000\t1000000000000000000\n", "plays.tsv:1"),
    ],
)
def test_broken_plays_end_in_one_sentence_that_names_the_place(
    catalogue, tmp_path, content, sentence
):
    from components.journal import journal
    from components.validate_plays.limits import ValidationConfig
    from components.validate_plays.validating import accept

    plays = tmp_path / "plays.tsv"
    plays.write_bytes(content)
    said = []

    def validate_step() -> None:
        with journal("validate_plays") as log:
            log.say = said.append
            accept(
                str(plays),
                str(catalogue / "tracks.csv"),
                ValidationConfig(),
                *(tmp_path / name for name in ("plays", "tracks", "findings", "report.html")),
                log,
            )

    with pytest.raises(SystemExit) as exit_:
        validate_step()
    assert exit_.value.code == 1
    assert said[-1].startswith("error: ")
    assert "plays.tsv" in said[-1]
    assert sentence in said[-1]


def test_a_failing_step_fails_the_run_with_its_own_sentence(catalogue, tmp_path, capsys):
    plays = tmp_path / "plays.tsv"
    plays.write_text("u1\tSO000\tmany\n")
    words = ["run", "train", "--data", str(catalogue), "--out", str(tmp_path / "out")]
    assert main([*words, f"--set=plays={plays}"]) == 1
    said = capsys.readouterr()
    assert "plays.tsv:1" in said.err
    assert "Traceback" not in said.out + said.err
    assert (tmp_path / "out" / "run.log").exists()


@pytest.mark.long
@pytest.mark.parametrize("step", ["validate-plays", "publish-features"])
def test_ctrl_c_stops_a_run_in_one_sentence(catalogue, tmp_path, step):
    """Started by kfp, beside the imports of the steps to come; and a fork."""
    run = subprocess.Popen(
        command("run", "train", "--data", str(catalogue), "--out", str(tmp_path), **QUICK),
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 240
    while f"{step}'" not in (log.read_text() if (log := tmp_path / "run.log").exists() else ""):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)
    os.killpg(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert (run.returncode, said) == (1, "\nstopped; the same command goes on from here\n")


def test_a_log_that_finds_no_space_ends_and_the_run_goes_on(tmp_path):
    screen = io.StringIO()
    with full_disk(10), (tmp_path / "run.log").open("a") as log:
        terminal = Terminal(log, screen)
        for step in ("split-songs", "extract-features"):
            print(f"Executing task '{step}'", file=terminal)
        print(f"{MARK}error: expected space", file=terminal)
    assert screen.getvalue().count("run.log ends here: File too large") == 1
    assert terminal.steps == ["split-songs", "extract-features"]
    assert terminal.failure(tmp_path / "run.log") == "extract-features: expected space"
