"""Cluster, feature store and registry take a version up together, or none of them does."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from components.deploy_predictor import rolling_back
from components.deploy_predictor.config import DeployConfig
from components.deploy_predictor.deploying import Published, deploy
from components.deploy_predictor.inference_service import Release, with_canary
from components.journal import Journal
from feature_repo.store import ONLINE_VIEWS, FactorStore
from needledrop.encoders.bundle import Bundle
from needledrop.errors import (
    ArtifactBroken,
    ConfigRejected,
    DeployFailed,
    NoChampion,
    RegistryConflict,
)
from needledrop.factors.wmf import Factors, WmfConfig
from needledrop.plays.tracks import Tracks
from needledrop.plays.triplets import Plays
from needledrop.promotion.registry import Registry
from needledrop.promotion.verdict import Verdict
from pipelines.__main__ import main
from tests.components.cluster import QUICK, SOON, join, verdict
from tests.kubernetes_api import TOKEN, KubernetesApi, running, version_of
from tests.serving.world import N_FACTORS, N_USERS, Server, make_bundle, register

pytestmark = pytest.mark.usefixtures("lone_store")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> dict[int, Path]:
    folders = {seed: tmp_path_factory.mktemp("bundles") / str(seed) for seed in (1, 2)}
    for seed, folder in folders.items():
        make_bundle(folder, seed)
    return folders


@pytest.fixture
def lone_store(monkeypatch):
    monkeypatch.delenv("NEEDLEDROP_STORE_PROFILE", raising=False)


@pytest.fixture
def api(tmp_path, monkeypatch):
    with running() as api:
        join(api, tmp_path, monkeypatch)
        yield api


class World:
    """A registry with two versions, a feature store, and what deploys one of them."""

    def __init__(self, folder: Path, bundles: dict[int, Path], api: KubernetesApi) -> None:
        self.folder, self.bundles, self.api = folder, bundles, api
        self.registry = Registry(folder / "registry")
        self.store = folder / "store"
        self.bundle = {seed: Bundle.load(path) for seed, path in bundles.items()}
        for bundle in self.bundle.values():
            api.fingerprints[bundle.version] = bundle.fingerprint
        self.champion: str | None = None  # that the candidate is judged against
        self.settings: dict = {}

    def add(self, seed: int) -> Bundle:
        """Register a version without promoting it."""
        work = self.folder / f"work{seed}"
        work.mkdir(exist_ok=True)
        if not (work / "verdict.json").exists():
            register(Registry(work / "registry"), self.bundles[seed], self.bundle[seed], work)
        verdict = Verdict.load(work / "verdict.json")
        verdict = dataclasses.replace(verdict, champion_version=self.champion)
        verdict.save(work / "judged.json")
        bundle = self.bundle[seed]
        self.registry.add(
            self.bundles[seed],
            work / "evaluation.json",
            work / "judged.json",
            version=bundle.version,
        )
        generator = np.random.default_rng(seed)
        users = generator.standard_normal((N_USERS, N_FACTORS), dtype=np.float32)
        Factors(
            users,
            users[:2],
            np.array([f"U{n}" for n in range(N_USERS)]),
            np.array(["SOa", "SOb"]),
            WmfConfig(n_factors=N_FACTORS),
        ).save(work / "factors")
        plays = sparse.csr_matrix(np.diag(np.full(N_USERS, seed))[:, :2])
        user_ids = np.array([f"U{n}" for n in range(N_USERS)])
        Plays(plays, user_ids, bundle.catalogue.song_ids[:2]).save(work / "plays")
        Tracks(bundle.catalogue.song_ids).save(work / "tracks.parquet")
        return bundle

    def deploy(self, seed: int, **settings) -> dict:
        """Add a version and deploy it; return the deployment."""
        self.add(seed)
        work = self.folder / f"work{seed}"
        deploy(
            self.bundles[seed],
            work / "judged.json",
            Published(work / "factors", work / "plays", work / "tracks.parquet"),
            self.folder / "registry",
            str(self.store),
            f"run-{seed}",
            DeployConfig(**({"deploy_to": "kserve"} | QUICK | self.settings | settings)),
            work / "deployment.json",
            Journal("deploy_predictor"),
        )
        self.champion = self.registry.champion()
        return json.loads((work / "deployment.json").read_text())

    def state(self) -> tuple[str | None, str | None, bool, set[str | None]]:
        """Champion, stable version, whether there is a canary, what is online."""
        thing = self.api.object()
        feast = FactorStore.open(self.store)
        return (
            self.registry.champion(),
            version_of(thing["spec"]["predictor"]["model"]) if thing else None,
            bool(thing and thing["spec"].get("canary")),
            {feast.online_version(view) for view in ONLINE_VIEWS},
        )

    def agreed(self, seed: int) -> tuple[str, str, bool, set[str]]:
        bundle = self.bundle[seed]
        return (bundle.version, bundle.version, False, {bundle.fingerprint})


@pytest.fixture
def world(tmp_path, bundles, api) -> World:
    return World(tmp_path, bundles, api)


def test_two_versions_one_after_the_other_and_back(world, capsys):
    first = world.deploy(1)
    assert first["moved"]
    assert world.state() == world.agreed(1)
    again = world.deploy(1)
    assert not again["moved"]
    assert world.state() == world.agreed(1)
    assert world.deploy(2)["deployed_to"] == "kserve"
    assert world.state() == world.agreed(2)

    store = FactorStore.open(world.store)
    store.set_availability(["SOa"], withdrawn=True)
    collection = store.collection()
    assert collection.version == world.bundle[2].fingerprint
    assert collection.songs.ids.tolist() == world.bundle[2].catalogue.song_ids.tolist()
    assert collection.listeners.played.toarray()[:3, :2].tolist() == [[2, 0], [0, 2], [0, 0]]

    assert roll_back(world) == 0
    assert world.state() == world.agreed(1)
    collection = store.collection()
    assert collection.version == world.bundle[1].fingerprint
    assert collection.listeners.played.toarray()[:2, :2].tolist() == [[1, 0], [0, 1]]
    annotations = world.api.object()["metadata"]["annotations"]
    assert annotations["needledrop.io/run-id"] == "rollback"
    said = capsys.readouterr()
    assert "with 10% of the traffic" in said.out
    assert f"champion: {world.bundle[1].version} (rolled back from" in said.out
    assert TOKEN not in said.out + said.err
    files = [path for path in world.folder.rglob("*") if path.is_file()]
    telling = [path.name for path in files if TOKEN.encode() in path.read_bytes()]
    assert telling == ["kubeconfig"]


def roll_back(world: World, seconds: int = 60) -> int:
    where = ["--registry", str(world.folder / "registry"), "--store", str(world.store)]
    return main(["rollback", "--cluster", *where, "--timeout-seconds", str(seconds)])


def test_a_rollback_whose_version_fails_its_check_changes_nothing(world, capsys):
    world.deploy(1)
    world.deploy(2)
    world.api.troubles.answers[world.bundle[1].version] = "other"
    assert roll_back(world) == 1
    assert world.state() == world.agreed(2)
    said = capsys.readouterr()
    assert said.err.startswith("error: version")
    assert "failed its check" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("on_cluster", [False, True])
def test_a_rollback_with_a_mistyped_store_changes_and_makes_nothing(world, capsys, on_cluster):
    world.deploy(1)
    world.deploy(2)
    n_writes = len(world.api.writes)
    missing = world.folder / "sotre"
    where = ["--registry", str(world.folder / "registry"), "--store", str(missing)]
    assert main(["rollback", *where, *(["--cluster"] if on_cluster else [])]) == 2
    assert f"expected a feature store at {missing}, found none" in capsys.readouterr().err
    assert not missing.exists()
    assert len(world.api.writes) == n_writes
    assert world.state() == world.agreed(2)


def test_a_rollback_that_does_not_settle_is_taken_back(world):
    world.deploy(1)
    world.deploy(2)
    world.api.troubles.stays_old = {world.bundle[1].version}
    assert roll_back(world, seconds=1) == 1
    assert world.state() == world.agreed(2)
    assert world.registry.rollback_target() == world.bundle[1].version


def test_a_rollback_ends_a_deployment_that_was_killed_half_way(world):
    """The pointer has moved and the canary is still one: its step was killed in between."""
    world.deploy(1)
    killed = world.add(2)
    world.api.patch(
        with_canary(
            release_of(killed, world), DeployConfig(deploy_to="kserve"), world.api.object()
        ),
    )
    world.registry.promote(killed.version, expected_champion=world.bundle[1].version)
    assert world.state()[2] is True
    assert roll_back(world) == 0
    assert world.state() == world.agreed(1)


def release_of(bundle: Bundle, world: World) -> Release:
    where = str(world.folder / "registry")
    return Release(bundle.version, bundle.fingerprint, N_FACTORS, where, "killed", verdict())


def test_a_damaged_history_stops_a_version_before_anything_goes_online(world, capsys):
    for seed in (1, 2):
        world.deploy(seed, deploy_to="registry")
    before = world.state()
    history = world.folder / "registry" / "history.jsonl"
    history.write_text(history.read_text() + "damaged\n")
    places = ("--registry", str(world.folder / "registry"), "--store", str(world.store))
    assert main(["rollback", *places]) == 1
    assert "history.jsonl" in capsys.readouterr().err
    assert world.state() == before
    with pytest.raises(ArtifactBroken, match="mend that line, or move the file away"):
        world.deploy(1, deploy_to="registry")
    assert world.state() == before
    history.unlink()
    assert main(["rollback", *places]) == 0


def test_a_rollback_with_nothing_before_is_told(world, capsys):
    world.deploy(1)
    assert roll_back(world) == 1
    assert "expected a champion before" in capsys.readouterr().err
    assert main(["rollback", "--cluster"]) == 2
    assert "expected --out DIR" in capsys.readouterr().err


def test_a_canary_that_fails_leaves_registry_and_store_alone(world):
    world.deploy(1)
    world.api.troubles.answers[world.bundle[2].version] = "500"
    with pytest.raises(DeployFailed):
        world.deploy(2)
    assert world.state() == world.agreed(1)
    assert len(world.registry.history()) == 1


def test_a_first_version_that_fails_leaves_nothing(world):
    world.api.troubles.answers[world.bundle[1].version] = "nan"
    with pytest.raises(DeployFailed):
        world.deploy(1)
    assert world.state() == (None, None, False, {None})


def test_a_race_that_is_lost_removes_the_canary(world):
    """The champion moves while the canary is tried: after the early look, before the move."""
    world.deploy(1)
    other = "other"
    work = world.folder / "work1"
    world.registry.add(
        world.bundles[1], work / "evaluation.json", work / "verdict.json", version=other
    )

    def other_run_is_faster(api: KubernetesApi) -> None:
        api.troubles.on_patch = None
        world.registry.promote(other, expected_champion=world.bundle[1].version)

    world.api.troubles.on_patch = other_run_is_faster
    with pytest.raises(RegistryConflict):
        world.deploy(2)
    # The other version holds the same bundle as the first: its factors are online again.
    assert world.state() == (other, *world.agreed(1)[1:])


def test_a_race_that_was_lost_before_is_told_before_anything_happens(world):
    world.deploy(1)
    world.champion = None
    world.api.log.clear()
    with pytest.raises(RegistryConflict):
        world.deploy(2)
    assert world.api.log == []


def test_a_promotion_that_does_not_settle_moves_everything_back(world):
    world.deploy(1)
    world.api.troubles.stays_old = {world.bundle[2].version}
    with pytest.raises(DeployFailed, match="failed its check"):
        world.deploy(2, **SOON)
    assert world.state() == world.agreed(1)
    assert world.registry.rolled_back_versions() == (world.bundle[2].version,)


def test_a_store_that_fails_removes_the_canary(world, monkeypatch):
    world.deploy(1)
    publish = FactorStore.write_song_factors

    def fail(self: FactorStore, *arguments, **options) -> None:
        monkeypatch.setattr(FactorStore, "write_song_factors", publish)
        raise OSError("the disk is full")

    monkeypatch.setattr(FactorStore, "write_song_factors", fail)
    with pytest.raises(OSError, match="disk is full"):
        world.deploy(2)
    assert world.state() == world.agreed(1)


def test_a_store_that_stays_broken_hides_no_failure(world, monkeypatch, capsys):
    world.deploy(1)

    def fail(*arguments, **options) -> None:
        raise ArtifactBroken("the store is held by another process")

    monkeypatch.setattr(FactorStore, "write_song_factors", fail)
    with pytest.raises(ArtifactBroken):
        world.deploy(2)
    assert "factors could not be put online again: the store is held" in capsys.readouterr().out
    assert world.state()[:3] == world.agreed(1)[:3]


@pytest.mark.long
def test_a_real_predictor_is_asked(world, tmp_path, monkeypatch):
    """``python -m serving`` of the very registry answers in place of the pods."""
    world.add(1)
    world.registry.promote(world.bundle[1].version, expected_champion=None)
    world.champion = world.bundle[1].version
    server = Server(world.folder / "registry", tmp_path, "--no-grpc")
    try:
        server.wait_until_it_listens()
        world.api.pods_port = server.http_port
        assert not world.deploy(1)["moved"]
        assert world.state() == world.agreed(1)
        asked = server.metric("needledrop_clips_total", source="audio")
        assert asked >= 3
        with pytest.raises(DeployFailed, match="expected bundle"):
            world.deploy(2)  # the server still follows the champion
        assert world.state() == world.agreed(1)
    finally:
        server.process.kill()
        server.process.wait()


def test_on_one_machine_no_cluster_is_looked_for(world, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    assert world.deploy(1, deploy_to="registry")["moved"]
    assert world.api.log == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"deploy_to": "ftp"}, "DeployConfig.deploy_to: expected 'registry' or 'kserve'"),
        ({"deployment_mode": "Serverless"}, "deployment_mode: expected 'Standard' or 'Knative'"),
        ({"namespace": "My Music"}, "namespace: expected at most 63 small letters"),
        ({"predictor_name": ""}, "predictor_name: expected"),
        ({"predictor_name": "x" * 35}, "predictor_name: expected at most 34"),
        ({"canary_share": 0.0}, "canary_share: expected 0.01 to 0.5"),
        ({"canary_share": float("nan")}, "canary_share: expected 0.01 to 0.5"),
        ({"predictor_image": "a b"}, "predictor_image: expected an image"),
        ({"deploy_timeout_seconds": 0}, "deploy_timeout_seconds: expected 1 to 86400"),
    ],
)
def test_settings_out_of_range_are_named(settings, sentence):
    with pytest.raises(ConfigRejected) as caught:
        DeployConfig(**settings)
    assert sentence in str(caught.value)


def test_nothing_to_roll_back_to_is_found_before_a_cluster_is_asked(world):
    config = DeployConfig(deploy_to="kserve")
    with pytest.raises(NoChampion):
        rolling_back.roll_back(world.folder / "registry", str(world.store), config)
    assert world.api.log == []
