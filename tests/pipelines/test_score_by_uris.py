"""Scoring new songs by URIs: an object store, Redis and Postgres in the place of folders."""

import json
from pathlib import Path

import numpy as np
import pytest

from components.find_new_songs.finding import find
from components.journal import Journal
from feature_repo.store import FactorStore
from needledrop.encoders.bundle import Bundle
from needledrop.promotion.registry import Registry
from needledrop.storage.opening import place_at
from pipelines.__main__ import main
from tests.engines import PASSWORD
from tests.object_store import SECRET
from tests.pipelines.new_songs import BROKEN, NEW, make_data, publish
from tests.serving.world import make_bundle, register

pytestmark = pytest.mark.engines


def make_world(s3, folder: Path) -> tuple[str, Bundle]:
    """(URI of a bucket with data, a champion and its factors online; the champion)."""
    bucket = s3.new_bucket()
    uri = f"s3://{bucket}"
    bundle = make_bundle(folder / "bundle", seed=1)
    register(Registry(f"{uri}/run/registry"), folder / "bundle", bundle, folder)
    publish(f"{uri}/run/store", bundle)
    data = make_data(folder / "data", bundle.catalogue.song_ids.tolist())
    for path in data.rglob("*.*"):
        key = f"data/{path.relative_to(data).as_posix()}"
        s3.client.upload_file(str(path), bucket, key)
    return uri, bundle


def score(uri: str, out: Path) -> int:
    places = {name: f"{uri}/run/{name}" for name in ("registry", "store", "workspace")}
    data = {"tracks": f"{uri}/data/tracks.csv", "audio": f"{uri}/data/audio", "n_processes": 1}
    settings = [f"--set={name}={value}" for name, value in {**data, **places}.items()]
    return main(["run", "score-new-songs", "--out", str(out), *settings])


def test_new_songs_in_a_bucket_get_factors_once(cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    uri, bundle = make_world(cluster, tmp_path)
    out = tmp_path / "out"
    assert score(uri, out) == 0
    assert f"{len(NEW)} songs have factors now" in capsys.readouterr().out

    store = FactorStore.open(f"{uri}/run/store")
    online = store.online_song_factors([*NEW, BROKEN], version=bundle.fingerprint)
    assert online.present.tolist() == [True] * len(NEW) + [False]
    for song, factors in zip(NEW, online.factors, strict=False):
        clip = tmp_path / "data" / "audio" / f"T{song}.wav"
        np.testing.assert_allclose(factors, bundle.factors_from_clip(clip), rtol=1e-5)
    scored = json.loads((out / "report-score-new-songs" / "new_songs.json").read_text())
    assert scored["song_ids"] == NEW
    # Nothing is kept here: the shards lie in the bucket, and the store's rows in its engines.
    assert place_at(f"{uri}/run/workspace/features").folders()
    assert not list(out.rglob("levels.npy"))
    names = {path.name for path in out.iterdir()}
    assert names == {"artifacts", "report-score-new-songs", "run.lock", "run.log"}
    for path in out.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes()
            assert PASSWORD.encode() not in path.read_bytes()

    # A second time nothing but the broken clip is new, and nothing at all when that is gone.
    data = (f"{uri}/data/tracks.csv", f"{uri}/data/audio")
    places = (f"{uri}/run/registry", f"{uri}/run/store")
    assert list(find(*data, *places, 0.01, Journal("test")).clips) == [BROKEN]
    release = store.online_release("song_factors")
    bucket = uri.removeprefix("s3://")
    cluster.client.delete_object(Bucket=bucket, Key=f"data/audio/T{BROKEN}.wav")
    before = set(cluster.keys(bucket))
    assert not find(*data, *places, 0.01, Journal("test")).clips
    assert set(cluster.keys(bucket)) == before
    assert FactorStore.open(f"{uri}/run/store").online_release("song_factors") == release
