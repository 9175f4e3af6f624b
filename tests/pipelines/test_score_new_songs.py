"""Songs that appeared since the champion was promoted get factors from it, once."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from components.find_new_songs.finding import find
from components.journal import Journal
from components.score_new_songs.config import ScoringConfig
from components.score_new_songs.scoring import score as score_found
from feature_repo.new_songs import add_songs
from feature_repo.store import FactorStore
from needledrop.encoders.bundle import Bundle
from needledrop.errors import (
    FactorsRejected,
    InputError,
    NoChampion,
    RegistryConflict,
    StoreMissing,
)
from needledrop.promotion.registry import Registry
from pipelines.__main__ import main
from tests.pipelines.new_songs import BROKEN, N_NEW, NEW, make_data, publish
from tests.serving.world import make_bundle, register, waveform


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, Path, Bundle]:
    """(data, the run's folder, the champion): a champion is promoted, and nothing scored."""
    work = tmp_path_factory.mktemp("world")
    out = work / "out"
    bundle = make_bundle(work / "bundle", seed=1)
    register(Registry(out / "registry"), work / "bundle", bundle, work)
    publish(out / "store", bundle)
    return make_data(work / "data", bundle.catalogue.song_ids.tolist()), out, bundle


def score(data: Path, out: Path, *settings: str) -> int:
    arguments = ["run", "score-new-songs", "--data", str(data), "--out", str(out)]
    return main([*arguments, "--set=n_processes=1", *(f"--set={one}" for one in settings)])


def scored_in(out: Path) -> bool:
    """Whether the last run came to its second step."""
    last = sorted((out / "artifacts").iterdir())[-1]
    return bool(list(last.glob("*/score-new-songs/executor_output.json")))


@pytest.fixture(scope="module")
def scored(world) -> Path:
    data, out, _ = world
    (out / "report").mkdir()
    (out / "report" / "evaluation.html").write_text("of the training")
    assert score(data, out) == 0
    return out


def test_no_store_is_made_where_songs_are_to_be_found(world, tmp_path):
    data, out, _ = world
    missing = tmp_path / "sotre"
    places = (data / "tracks.csv", data / "audio", out / "registry", str(missing))
    with pytest.raises(StoreMissing, match=f"expected a feature store at {missing}"):
        find(*map(str, places), 0.01, Journal("test"))
    assert not missing.exists()


def test_new_songs_get_the_champions_factors_online(scored, world):
    data, _, bundle = world
    store = FactorStore.open(scored / "store")
    online = store.online_song_factors([*NEW, BROKEN, "SN999"], version=bundle.fingerprint)
    assert online.present.tolist() == [True] * N_NEW + [False, False]
    assert online.sources[:N_NEW].tolist() == ["audio"] * N_NEW
    # The same as a server that is given the clip finds, one by one.
    for song, factors in zip(NEW, online.factors, strict=False):
        clip = data / "audio" / f"T{song}.wav"
        np.testing.assert_allclose(factors, bundle.factors_from_clip(clip), rtol=1e-5)
    known = bundle.catalogue
    online = store.online_song_factors(known.song_ids)
    np.testing.assert_array_equal(online.factors, known.song_factors)


def test_what_the_tracks_say_of_new_songs_is_there_with_their_factors(scored):
    songs = FactorStore.open(scored / "store").collection().songs
    artist_of = dict(zip(songs.ids.tolist(), songs.artist_ids.tolist(), strict=True))
    assert [artist_of[song] for song in NEW] == [f"AR{song}" for song in NEW]
    assert songs.years[np.isin(songs.ids, NEW)].tolist() == [2000] * N_NEW


def test_a_clip_of_no_use_is_named_with_its_reason(scored):
    [rejected] = sorted((scored / "artifacts").rglob("rejected_clips.tsv"))
    rows = rejected.read_text().splitlines()
    assert len(rows) == 2
    assert rows[1].startswith(f"{BROKEN}\tT{BROKEN}.wav\t")
    assert (scored / "report" / "evaluation.html").read_text() == "of the training"
    page = (scored / "report-score-new-songs" / "new_songs.html").read_text()
    assert f"T{BROKEN}.wav" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert (
        json.loads((scored / "report-score-new-songs" / "new_songs.json").read_text())["song_ids"]
        == NEW
    )
    assert "| of them new | 5 |" in (scored / "report-score-new-songs" / "new_songs.md").read_text()


@pytest.mark.long
def test_a_second_run_adds_nothing(scored, world, tmp_path, capsys):
    data, out, _ = world
    store = FactorStore.open(scored / "store")
    release = store.online_release("song_factors")
    stamps = {path: path.stat().st_mtime_ns for path in (scored / "store").rglob("*.parquet")}
    places = (str(out / "registry"), str(out / "store"))
    # The broken clip is new again: it is heard, and rejected, and nothing is written.
    found = find(str(data / "tracks.csv"), str(data / "audio"), *places, 0.01, Journal("test"))
    assert list(found.clips) == [BROKEN]
    found.save(tmp_path / "new_songs.json")
    workspace, config = str(tmp_path / "workspace"), ScoringConfig(n_processes=1)
    score_found(
        tmp_path / "new_songs.json", *places, workspace, config, tmp_path / "out", Journal("test")
    )
    assert "0 songs have factors now" in capsys.readouterr().out

    (data / "audio" / f"T{BROKEN}.wav").rename(tmp_path / "broken.wav")
    try:
        assert score(data, out) == 0
    finally:
        (tmp_path / "broken.wav").rename(data / "audio" / f"T{BROKEN}.wav")
    assert "no new songs" in capsys.readouterr().out
    assert not scored_in(out)
    assert store.online_release("song_factors") == release
    after = {path: path.stat().st_mtime_ns for path in (scored / "store").rglob("*.parquet")}
    assert after == stamps


@pytest.mark.long
def test_too_many_broken_clips_fail_the_step_and_add_nothing(world, tmp_path):
    data, out, bundle = world
    publish(tmp_path / "store", bundle)
    places, journal = (str(out / "registry"), str(tmp_path / "store")), Journal("test")
    found = find(str(data / "tracks.csv"), str(data / "audio"), *places, 0.01, journal)
    found.save(tmp_path / "new_songs.json")
    config = ScoringConfig(n_processes=1, max_rejected_clips_share=0.01)
    sentence = r"1 of 13 clips are new and can't be used, more than the limit of 1\.0%"
    with pytest.raises(InputError, match=sentence):
        score_found(
            tmp_path / "new_songs.json",
            *places,
            str(tmp_path / "workspace"),
            config,
            tmp_path / "scored",
            journal,
        )
    assert not FactorStore.open(tmp_path / "store").online_song_factors(NEW).present.any()


def test_without_a_champion_it_says_what_to_do(world, tmp_path):
    data, places = world[0], (str(tmp_path / "registry"), str(tmp_path / "store"))
    with pytest.raises(NoChampion, match=r"expected a champion in .*; run needledrop-train"):
        find(str(data / "tracks.csv"), str(data / "audio"), *places, 0.01, Journal("test"))


@pytest.mark.long
def test_a_champion_that_was_promoted_meanwhile_takes_no_songs_of_the_old_one(world, tmp_path):
    data, out, old = world
    shutil.copytree(out / "registry", tmp_path / "registry")
    publish(tmp_path / "store", old)
    places = (str(tmp_path / "registry"), str(tmp_path / "store"))
    journal = Journal("test")
    found = find(str(data / "tracks.csv"), str(data / "audio"), *places, 0.01, journal)
    found.save(tmp_path / "new_songs.json")

    # The new champion's factors go online before the pointer moves.
    bundle = make_bundle(tmp_path / "bundle", seed=2)
    publish(tmp_path / "store", bundle)
    store = FactorStore.open(tmp_path / "store")
    clip = old.features(waveform(4))
    with pytest.raises(FactorsRejected, match="run again"):
        add_songs([(NEW[0], clip)], old, store)
    with pytest.raises(FactorsRejected, match="run again"):
        find(str(data / "tracks.csv"), str(data / "audio"), *places, 0.01, journal)
    register(Registry(places[0]), tmp_path / "bundle", bundle, tmp_path)
    with pytest.raises(RegistryConflict, match="run again"):
        score_found(
            tmp_path / "new_songs.json",
            *places,
            str(tmp_path / "workspace"),
            ScoringConfig(n_processes=1),
            tmp_path / "scored",
            journal,
        )
    assert not store.online_song_factors(NEW).present.any()
    assert add_songs([(NEW[0], bundle.features(waveform(4)))], bundle, store) == [NEW[0]]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("n_epochs=3", "unknown parameter 'n_epochs'"),
        ("max_rejected_clips_share=2", "max_rejected_clips_share: expected a share from 0 to 1"),
        ("plays=x", "unknown parameter 'plays'"),
    ],
)
def test_a_parameter_that_is_not_its_own_is_a_usage_error(
    world, tmp_path, capsys, setting, sentence
):
    assert score(world[0], tmp_path, setting) == 2
    assert sentence in capsys.readouterr().err
    assert main(["run", "score-new-songs", "--out", str(tmp_path)]) == 2
    assert "expected --data DIR, or --set tracks=PATH" in capsys.readouterr().err
