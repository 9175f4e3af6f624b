"""Training handed to a TrainJob; how jobs are made, followed and fail is test_errand.py's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from components.job_config import JobConfig
from components.journal import Journal
from components.publish_features.publishing import publish
from components.train_encoder.launching import train_here_or_there, train_job
from components.train_encoder.request import Inputs, LaunchConfig, TrainingRequest
from needledrop.artifacts import read_json
from needledrop.audio.bag_of_words import BagOfWords, BagOfWordsConfig
from needledrop.audio.feature_store import FeatureStore
from needledrop.encoders.bundle import Bundle
from needledrop.encoders.cnn import CnnConfig
from needledrop.encoders.training_config import TrainingConfig
from needledrop.errors import ConfigRejected, EngineFailed
from needledrop.factors.wmf import WmfConfig, learn_factors
from needledrop.plays.split import Split
from needledrop.plays.triplets import Plays
from tests.encoders.conftest import heard  # noqa: F401  (a fixture)
from tests.jobs_api import running
from tests.kubernetes_api import TOKEN

# The device is a CPU all the same: the two processes meet by gloo.
TWO = LaunchConfig(n_nodes=1, gpus_per_node=2, job=JobConfig(poll_seconds=0.02))
SIZE = CnnConfig((8, 8), pooling_frames=(4, 2), n_hidden=(16,), dropout=0.0, n_networks=1)
QUICK = TrainingConfig(
    n_epochs=2, windows_per_song=2, batch_size=8, min_epochs=1, device="cpu", seed=3
)


@pytest.fixture(scope="module")
def handed(heard, tmp_path_factory) -> tuple[Inputs, Path]:  # noqa: F811
    """The artifacts of the steps before, and the feature store."""
    features_store, _ = heard
    songs = features_store.song_ids
    split = Split("random", 0, songs[:10], songs[10:13], songs[13:], songs[:0])
    return artifacts_of(features_store, split, tmp_path_factory.mktemp("world"))


def artifacts_of(features_store: FeatureStore, split: Split, folder: Path) -> tuple[Inputs, Path]:
    songs = features_store.song_ids
    generator = np.random.default_rng(0)
    counts = generator.poisson(0.5, (40, len(songs))).astype(np.int64)
    plays = Plays(
        sparse.csr_matrix(counts), np.array([f"U{n:02}" for n in range(40)]), songs.copy()
    )
    inputs = Inputs.within(folder)
    plays.save(inputs.plays)
    split.save(inputs.split)
    config = WmfConfig(n_factors=4, regularization=1.0, n_iterations=2)
    learn_factors(plays.of_songs(split.known.tolist()), config).save(inputs.factors)
    inputs.features.mkdir()
    manifest = Path(features_store._place.uri).parent / "features.json"
    (inputs.features / "features.json").write_bytes(manifest.read_bytes())
    words = BagOfWordsConfig(n_words=8, n_iterations=2)
    BagOfWords.fit(features_store, split.train.tolist(), words).save(
        inputs.features / "bag_of_words"
    )
    store = folder / "store"
    publish(inputs.factors, inputs.features, str(store), inputs.published, Journal("publish"))
    return inputs, store


@pytest.fixture
def api(tmp_path, monkeypatch):
    with running() as one:
        monkeypatch.setenv("KUBECONFIG", str(one.kubeconfig(tmp_path)))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.delenv("NEEDLEDROP_STORE_PROFILE", raising=False)
        yield one


def train(handed, folder: Path, launch: LaunchConfig, **changes) -> tuple[Bundle, Journal]:
    inputs, store = handed
    journal = Journal("train_encoder_cnn")
    request = TrainingRequest("cnn", str(store), str(folder / "workspace"), SIZE, QUICK)
    train_here_or_there(
        inputs,
        replace(request, **changes),
        launch,
        folder / "bundle",
        folder / "report.html",
        journal,
    )
    return Bundle.load(folder / "bundle"), journal


@pytest.mark.long
def test_a_train_job_leaves_what_the_step_itself_would_have(handed, api, tmp_path, capsys):
    here, spoken = train(handed, tmp_path / "here", LaunchConfig())
    assert api.log == []
    there, followed = train(handed, tmp_path / "there", TWO)
    assert followed.figures == pytest.approx(spoken.figures, rel=1e-4)
    assert there.encoder.network.state_dict().keys() == here.encoder.network.state_dict().keys()
    np.testing.assert_allclose(
        there.catalogue.song_factors, here.catalogue.song_factors, rtol=1e-2, atol=1e-3
    )
    report = (tmp_path / "there" / "report.html").read_text()
    assert "Training of the convolutional network" in report
    [job] = api.made
    assert job["spec"]["trainer"]["numProcPerNode"] == 2
    name = job["metadata"]["name"]
    assert f"TrainJob {name} in music: complete" in capsys.readouterr().out
    # The same again has nothing to do.
    again, _ = train(handed, tmp_path / "there", TWO)
    assert again.fingerprint == there.fingerprint
    assert len(api.made) == 1
    handed_over = [path for path in (tmp_path / "there").rglob("*") if path.is_file()]
    assert not [path for path in handed_over if TOKEN.encode() in path.read_bytes()]


def test_other_settings_are_another_job(handed, api, tmp_path):
    api.troubles.fails = 2
    for seed in (3, 4):
        with pytest.raises(EngineFailed, match="to succeed"):
            train(handed, tmp_path, TWO, training=replace(QUICK, seed=seed))
    assert len({job["metadata"]["name"] for job in api.made}) == 2


def test_gpus_are_asked_for_and_a_process_runs_on_each():
    trainer = train_job("a", "music", LaunchConfig(4, 8), "s3://music/a")["spec"]["trainer"]
    assert trainer["numNodes"] == 4
    assert trainer["numProcPerNode"] == 8
    assert trainer["resourcesPerNode"] == {"limits": {"nvidia.com/gpu": 8}}
    assert trainer["command"] == ["torchrun", "-m", "components.train_encoder"]
    assert trainer["args"] == ["s3://music/a"]
    on_cpus = train_job("a", "music", LaunchConfig(2, 0), "s3://music/a")["spec"]["trainer"]
    assert on_cpus["numProcPerNode"] == 1
    assert "resourcesPerNode" not in on_cpus


def test_a_request_comes_back_as_it_was_written(tmp_path):
    request = TrainingRequest("cnn", "store", "s3://w", SIZE, QUICK)
    request.save(tmp_path / "request.json")
    assert TrainingRequest.load(tmp_path / "request.json") == request
    assert read_json(tmp_path / "request.json")["cnn"]["n_hidden"] == [16]
    with pytest.raises(ConfigRejected, match="encoder: expected linear or cnn, got 'tree'"):
        replace(request, encoder="tree")
    for settings in ({"n_nodes": -1}, {"gpus_per_node": 65}):
        with pytest.raises(ConfigRejected, match=f"launch.{next(iter(settings))}: expected 0 to"):
            LaunchConfig(**settings)
