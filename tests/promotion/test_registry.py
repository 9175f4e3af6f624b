"""The registry: append-only versions, one pointer, and what races and kills do to them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import needledrop
from needledrop.errors import ArtifactBroken, DiskFull, NoChampion, RegistryConflict
from needledrop.promotion.gate import judge
from needledrop.promotion.registry import Registry
from needledrop.promotion.verdict import Verdict
from needledrop.ranking.report import Report
from needledrop.storage.lock import writer_lock
from tests.full_disk import full_disk


@pytest.fixture
def parts(tmp_path, make_report):
    """A function that makes a bundle of some content, next to a report and a verdict."""
    report = make_report()
    report.save(tmp_path / "evaluation.json")
    judge(report, candidate_version="v1").save(tmp_path / "verdict.json")

    def bundle(content="weights", n_files=2):
        folder = tmp_path / f"bundle-{content}-{n_files}"
        (folder / "catalogue").mkdir(parents=True, exist_ok=True)
        for number in range(n_files):
            (folder / "catalogue" / f"{number:04d}.bin").write_bytes(content.encode() * 1000)
        (folder / "bundle.json").write_text(json.dumps({"content": content}))
        return folder, tmp_path / "evaluation.json", tmp_path / "verdict.json"

    return bundle


class FolderShelf:
    """A registry's folder, as a person sees and harms it."""

    def __init__(self, root: Path) -> None:
        self.uri = str(root)
        self._root = root

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        (self._root / name).write_bytes(data)

    def change(self, version: str) -> None:
        self.write(f"versions/{version}/bundle/bundle.json", b"{}")

    def remove(self, version: str) -> None:
        shutil.rmtree(self._root / "versions" / version)

    def forget_card(self, version: str) -> None:
        (self._root / "versions" / version / "MODEL_CARD.md").unlink()

    def history(self) -> list[dict]:
        lines = self.read("history.jsonl").decode().splitlines()
        return [json.loads(line) for line in lines]

    def forget_last_move(self) -> None:
        *lines, _ = self.read("history.jsonl").splitlines(keepends=True)
        self.write("history.jsonl", b"".join(lines))


class ObjectShelf(FolderShelf):
    """The same for a prefix of a bucket."""

    def __init__(self, store, bucket: str) -> None:
        self.uri = f"s3://{bucket}/models/registry"
        self.store, self.bucket = store, bucket

    def keys(self, name: str) -> list[str]:
        return self.store.keys(self.bucket, f"models/registry/{name}")

    def read(self, name: str) -> bytes:
        key = f"models/registry/{name}"
        return self.store.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def write(self, name: str, data: bytes) -> None:
        self.store.client.put_object(Bucket=self.bucket, Key=f"models/registry/{name}", Body=data)

    def change(self, version: str) -> None:
        (key,) = [key for key in self.keys(f"versions/{version}/") if key.endswith("bundle.json")]
        self.store.client.put_object(Bucket=self.bucket, Key=key, Body=b"{}")

    def remove(self, version: str) -> None:
        for key in self.keys(f"versions/{version}/"):
            self.store.client.delete_object(Bucket=self.bucket, Key=key)

    def forget_card(self, version: str) -> None:
        (key,) = [key for key in self.keys(f"versions/{version}/") if key.endswith("CARD.md")]
        self.store.client.delete_object(Bucket=self.bucket, Key=key)

    def history(self) -> list[dict]:
        names = [key.removeprefix("models/registry/") for key in self.keys("history/")]
        return [json.loads(self.read(name)) for name in names]

    def forget_last_move(self) -> None:
        self.store.client.delete_object(Bucket=self.bucket, Key=self.keys("history/")[-1])


@pytest.fixture(params=["folder", "objects"])
def shelf(request, tmp_path):
    """Each test that asks for a registry runs twice: in a folder, and in an object store."""
    if request.param == "folder":
        return FolderShelf(tmp_path / "registry")
    store = request.getfixturevalue("s3")
    return ObjectShelf(store, store.new_bucket())


@pytest.fixture
def registry(shelf):
    return Registry(shelf.uri)


@pytest.fixture
def filled(registry, parts):
    """Versions a, b, c; none is champion yet."""
    for version in "abc":
        registry.add(*parts(f"weights of {version}"), version=version)
    return registry


def spawn(script, *arguments):
    root = str(Path(needledrop.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_added_version_holds_everything(registry, parts, tmp_path):
    folder, report, verdict = parts()
    facts = {"data": {"n_plays": 123456}, "code": "c0de", "seeds": [1, 2]}
    assert registry.add(folder, report, verdict, version="v1", metadata=facts) == "v1"
    assert registry.versions() == ["v1"]
    kept = registry.path("v1")
    assert {path.name for path in kept.iterdir()} == {
        "bundle",
        "evaluation.json",
        "verdict.json",
        "MODEL_CARD.md",
        "record.json",
    }
    assert (registry.bundle_path("v1") / "catalogue" / "0001.bin").read_bytes()[:7] == b"weights"
    assert Report.load(kept / "evaluation.json") == Report.load(report)
    assert Verdict.load(kept / "verdict.json") == Verdict.load(verdict)
    registry.verify("v1")
    card = (kept / "MODEL_CARD.md").read_text()
    assert registry.model_card("v1") == card
    assert card.startswith("# Model card: needledrop v1\n")
    assert "| data.n_plays | 123,456 |" in card
    assert "| seeds | 1, 2 |" in card
    assert "| mAP@500 | 0.0100 (0.0090 to 0.0110) | 0.0200 (0.0190 to 0.0210) |" in card
    assert "| beats linear | passed |" in card
    for heading in ("Intended use", "Data, code and training", "Evaluation", "Verdict", "Limits"):
        assert f"## {heading}\n" in card


def test_adding_again_is_the_same_and_other_content_is_refused(registry, parts):
    registry.add(*parts(), version="v1", run_id="first")
    before = (registry.path("v1") / "record.json").read_bytes()
    assert registry.add(*parts(), version="v1", run_id="second") == "v1"
    assert (registry.path("v1") / "record.json").read_bytes() == before
    with pytest.raises(RegistryConflict, match="append-only"):
        registry.add(*parts("others"), version="v1")
    assert (registry.path("v1") / "record.json").read_bytes() == before
    registry.verify("v1")


def test_versions_come_in_the_order_of_adding(registry, parts):
    for version in ("b", "c", "a"):
        registry.add(*parts(f"weights of {version}"), version=version)
    assert registry.versions() == ["b", "c", "a"]


@pytest.mark.parametrize("version", ["", "../up", ".hidden", "a/b", "x" * 65, "a b"])
def test_versions_that_are_no_names_are_refused(registry, parts, version):
    with pytest.raises(ArtifactBroken, match="expected a version of letters"):
        registry.add(*parts(), version=version)
    with pytest.raises(ArtifactBroken, match="expected a registered version"):
        registry.path(version)


def test_what_is_missing_is_refused_and_leaves_nothing(registry, parts, tmp_path):
    folder, report, verdict = parts()
    with pytest.raises(ArtifactBroken, match="expected a bundle"):
        registry.add(tmp_path / "nowhere", report, verdict, version="v1")
    with pytest.raises(ArtifactBroken, match="expected the artifact"):
        registry.add(folder, tmp_path / "nowhere.json", verdict, version="v1")
    assert registry.versions() == []


def test_nothing_is_champion_at_first(filled):
    assert filled.champion() is None
    assert filled.history() == []
    assert filled.rolled_back_versions() == ()
    with pytest.raises(NoChampion, match="run the training pipeline"):
        filled.champion_path()
    with pytest.raises(NoChampion, match="nothing has been promoted"):
        filled.rollback()


def test_an_unknown_version_names_the_known_ones(filled):
    with pytest.raises(ArtifactBroken, match="got 'd'; registered are: a, b, c"):
        filled.promote("d", expected_champion=None)
    with pytest.raises(ArtifactBroken, match="registered are: none"):
        Registry(filled.path("a") / "elsewhere").path("a")


def test_promotions_and_rollbacks_move_the_pointer_and_write_history(filled):
    assert filled.promote("a", expected_champion=None, run_id="run-1")
    assert filled.promote("b", expected_champion="a", run_id="run-2")
    assert filled.promote("c", expected_champion="b", run_id="run-3")
    assert filled.champion() == "c"
    assert filled.champion_path() == filled.path("c")
    move = filled.rollback(run_id="operator")
    assert (move.action, move.from_version, move.to_version) == ("rollback", "c", "b")
    assert filled.champion() == "b"
    assert filled.rolled_back_versions() == ("c",)
    assert filled.rollback().to_version == "a"
    assert filled.rolled_back_versions() == ("c", "b")
    with pytest.raises(NoChampion, match="expected a champion before a"):
        filled.rollback()
    assert filled.promote("c", expected_champion="a")
    assert filled.rolled_back_versions() == ("b",)
    assert filled.rollback().to_version == "a"
    history = filled.history()
    assert [(move.number, move.from_version, move.to_version) for move in history] == [
        (1, None, "a"),
        (2, "a", "b"),
        (3, "b", "c"),
        (4, "c", "b"),
        (5, "b", "a"),
        (6, "a", "c"),
        (7, "c", "a"),
    ]
    assert [move.run_id for move in history[:4]] == ["run-1", "run-2", "run-3", "operator"]


def test_the_pointer_and_its_history_say_all_that_a_person_needs(filled, shelf):
    filled.promote("a", expected_champion=None, run_id="run-1")
    filled.promote("b", expected_champion="a", run_id="run-2")
    content = json.loads(shelf.read("champion.json"))
    assert [move["to_version"] for move in shelf.history()] == ["a", "b"]
    assert content["version"] == "b"
    assert content["previous"] == ["a"]
    assert content["run_id"] == "run-2"
    assert content["moved_at"].endswith("+00:00")


def test_promoting_the_champion_again_changes_nothing(filled):
    assert filled.promote("a", expected_champion=None)
    # A step that is retried after it succeeded still expects the champion of before.
    assert not filled.promote("a", expected_champion=None)
    assert not filled.promote("a", expected_champion="a")
    assert len(filled.history()) == 1


def test_a_champion_that_moved_meanwhile_is_a_conflict(filled):
    filled.promote("a", expected_champion=None)
    with pytest.raises(RegistryConflict, match="expected the champion none, got a"):
        filled.promote("b", expected_champion=None)
    with pytest.raises(RegistryConflict, match="expected the champion c, got a"):
        filled.promote("b", expected_champion="c")
    assert filled.champion() == "a"


def test_changed_files_are_never_promoted_nor_rolled_back_to(filled, shelf):
    filled.promote("a", expected_champion=None)
    filled.promote("b", expected_champion="a")
    for version in "ac":
        shelf.change(version)
    with pytest.raises(ArtifactBroken, match="changed after it was"):
        filled.promote("c", expected_champion="b")
    with pytest.raises(ArtifactBroken, match=r"version a|versions/a"):
        filled.rollback()
    assert filled.champion() == "b"
    shelf.remove("a")
    with pytest.raises(ArtifactBroken, match="registered are: b, c"):
        filled.rollback()


@pytest.mark.parametrize("content", [b'{"version": "a"}', b"[]", b"", b"\xff\xfe"])
def test_a_broken_pointer_is_an_error_and_not_an_empty_registry(filled, shelf, content):
    filled.promote("a", expected_champion=None)
    shelf.write("champion.json", content)
    with pytest.raises(ArtifactBroken, match="restore it from history"):
        filled.champion()


@pytest.mark.parametrize("content", [b"{}", b"[]", b"5", b'{"version": "a"}'])
def test_a_broken_record_is_an_error(parts, tmp_path, content):
    registry = Registry(tmp_path / "registry")
    registry.add(*parts("weights of a"), version="a")
    (tmp_path / "registry" / "versions" / "a" / "record.json").write_bytes(content)
    for act in (registry.versions, lambda: registry.path("a"), lambda: registry.verify("a")):
        with pytest.raises(ArtifactBroken, match=r"a/record.json.*restore it"):
            act()


def test_a_kill_between_pointer_and_history_is_made_good(filled, shelf):
    filled.promote("a", expected_champion=None)
    filled.promote("b", expected_champion="a")
    shelf.forget_last_move()
    assert [move.to_version for move in filled.history()] == ["a", "b"]
    filled.promote("c", expected_champion="b")
    assert [move["number"] for move in shelf.history()] == [1, 2, 3]
    assert [move["to_version"] for move in shelf.history()] == ["a", "b", "c"]


def test_half_a_line_of_history_is_made_good(parts, tmp_path):
    shelf = FolderShelf(tmp_path / "registry")
    registry = Registry(shelf.uri)
    for version in "abc":
        registry.add(*parts(f"weights of {version}"), version=version)
    registry.promote("a", expected_champion=None)
    registry.promote("b", expected_champion="a")
    first, second = shelf.read("history.jsonl").splitlines(keepends=True)
    shelf.write("history.jsonl", first + second[:25])
    assert [move.to_version for move in registry.history()] == ["a", "b"]
    registry.promote("c", expected_champion="b")
    assert [move["to_version"] for move in shelf.history()] == ["a", "b", "c"]


def test_a_writer_waits_for_the_lock_and_then_says_who_to_look_for(parts, tmp_path):
    root = tmp_path / "registry"
    Registry(root).add(*parts(), version="a")
    impatient = Registry(root, lock_timeout_seconds=0.1)
    with (
        writer_lock(root / "lock", 1),
        pytest.raises(RegistryConflict, match=r"free within 0\.1 s"),
    ):
        impatient.promote("a", expected_champion=None)
    assert impatient.promote("a", expected_champion=None)


ADD_FOREVER = """
import sys
from needledrop.promotion.registry import Registry
root, bundle, report, verdict = sys.argv[1:]
Registry(root).add(bundle, report, verdict, version="v1")
"""


def test_sigkill_in_the_middle_of_adding_leaves_nothing_that_counts(parts, tmp_path):
    folder, report, verdict = parts("killed", n_files=400)
    root = tmp_path / "registry"
    registry = Registry(root)
    child = spawn(ADD_FOREVER, root, folder, report, verdict)
    deadline = time.monotonic() + 30
    while not any((root / "versions").glob(".v1.part-*/content/bundle/catalogue/*")):
        assert time.monotonic() < deadline
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL
    assert list((root / "versions").glob(".v1.part-*"))
    assert registry.versions() == []
    # The next run isn't blocked by the dead one's lock, clears its leftovers, and succeeds.
    assert registry.add(folder, report, verdict, version="v1") == "v1"
    assert [path.name for path in (root / "versions").iterdir()] == ["v1"]
    registry.verify("v1")


def test_a_full_disk_adds_nothing_and_the_same_again_does(parts, tmp_path):
    folder, report, verdict = parts("much larger " * 10)
    registry = Registry(tmp_path / "registry")
    registry.add(*parts("small"), version="v0")
    registry.promote("v0", expected_champion=None)
    with full_disk(100_000), pytest.raises(DiskFull, match="run the same again"):
        registry.add(folder, report, verdict, version="v1")
    assert registry.versions() == ["v0"]
    registry.add(folder, report, verdict, version="v1")
    with full_disk(0), pytest.raises(DiskFull, match="run the same again"):
        registry.promote("v1", expected_champion="v0")
    assert registry.champion() == "v0"
    assert registry.promote("v1", expected_champion="v0")
    assert registry.champion() == "v1"
    assert [move.to_version for move in registry.history()] == ["v0", "v1"]


ADD_AND_PROMOTE = """
import sys, time
from needledrop.errors import RegistryConflict
from needledrop.promotion.registry import Registry
root, bundle, report, verdict, version, start_at = sys.argv[1:]
registry = Registry(root)
time.sleep(max(0.0, float(start_at) - time.time()))
registry.add(bundle, report, verdict, version=version)
try:
    print("moved" if registry.promote(version, expected_champion=None) else "already")
except RegistryConflict:
    print("conflict")
"""


def test_two_runs_at_once_promote_one_champion(registry, parts, shelf):
    start_at = time.time() + 2.0
    children = [
        spawn(ADD_AND_PROMOTE, shelf.uri, *parts(version), version, start_at)
        for version in ("x", "y")
    ]
    said = [child.communicate(timeout=60)[0].strip() for child in children]
    assert sorted(said) == ["conflict", "moved"]
    assert sorted(registry.versions()) == ["x", "y"]
    assert registry.champion() == "xy"[said.index("moved")]
    assert len(registry.history()) == 1


def test_two_runs_that_add_the_same_version_at_once_agree(registry, parts, shelf):
    start_at = time.time() + 2.0
    children = [
        spawn(ADD_AND_PROMOTE, shelf.uri, *parts("same", 50), "v1", start_at) for _ in range(2)
    ]
    said = [child.communicate(timeout=60)[0].strip() for child in children]
    assert sorted(said) == ["already", "moved"]
    assert registry.versions() == ["v1"]
    registry.verify("v1")


MOVE_MANY_TIMES = """
import random, sys
from needledrop.errors import NoChampion, RegistryConflict
from needledrop.promotion.registry import Registry
root, seed = sys.argv[1:]
registry, choose = Registry(root), random.Random(int(seed))
for _ in range(25):
    try:
        if choose.random() < 0.3:
            registry.rollback(run_id=seed)
        else:
            registry.promote(
                choose.choice("abc"), expected_champion=registry.champion(), run_id=seed
            )
    except (RegistryConflict, NoChampion):
        pass
"""


def test_many_moves_at_once_leave_one_consistent_story(filled, shelf):
    children = [spawn(MOVE_MANY_TIMES, shelf.uri, seed) for seed in range(3)]
    while any(child.poll() is None for child in children):
        champion = filled.champion()  # a reader never sees a half-written pointer
        assert champion in (None, "a", "b", "c")
        time.sleep(0.002)
    for child in children:
        assert child.wait() == 0, child.stderr.read()
    history = filled.history()
    assert [move.number for move in history] == list(range(1, len(history) + 1))
    stack = []
    for move in history:
        assert move.from_version == (stack[-1] if stack else None)
        if move.action == "rollback":
            stack.pop()
        else:
            stack.append(move.to_version)
        assert stack[-1] == move.to_version
    assert filled.champion() == stack[-1]
    assert json.loads(shelf.read("champion.json"))["previous"] == stack[:-1]
    assert {move.run_id for move in history} == {"0", "1", "2"}


@pytest.mark.parametrize("winner", ["c", "b"])
def test_a_lost_race_is_told_and_overwrites_nothing(s3, parts, winner):
    """Between reading the pointer and moving it another run promotes: no lock kept it out."""
    shelf = ObjectShelf(s3, s3.new_bucket())
    registry, other = Registry(shelf.uri), Registry(shelf.uri)
    for version in "abc":
        registry.add(*parts(f"weights of {version}"), version=version)
    registry.promote("a", expected_champion=None)
    append = registry._root.append_missing

    def promote_meanwhile(*arguments) -> None:
        del registry._root.append_missing
        append(*arguments)
        assert other.promote(winner, expected_champion="a")

    registry._root.append_missing = promote_meanwhile
    if winner == "b":  # the same step, tried twice: that is no conflict
        assert not registry.promote("b", expected_champion="a")
    else:
        with pytest.raises(RegistryConflict, match="expected the champion a, got c"):
            registry.promote("b", expected_champion="a")
    assert registry.champion() == winner
    assert [move["to_version"] for move in shelf.history()] == ["a", winner]


def test_a_model_card_that_is_gone_is_named(registry, parts, shelf):
    registry.add(*parts(), version="v1")
    shelf.forget_card("v1")
    with pytest.raises(ArtifactBroken, match=r"expected MODEL_CARD\.md in version v1 of"):
        registry.model_card("v1")
    with pytest.raises(ArtifactBroken, match="expected a registered version, got 'v9'"):
        registry.model_card("v9")
