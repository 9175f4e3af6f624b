"""Every step that takes plays alone, at full size and at a tenth of it: seconds and peak memory.

    PYTHONPATH=. python benchmarks/plays_at_size.py FOLDER [--parts tenth whole] [--steps ...]

FOLDER gets drawn plays of the Taste Profile's size, files without content that are named as clips
are, and what the steps make of them; what is there already is taken, so that single steps can be
run again. Each step runs in a process of its own, start of Python and imports included, through the
body of the pipeline's component and with the pipeline's own settings, but for few iterations. What
a component can't do without audio (publishing, evaluating) is called as the component calls it, and
the factors that a network would predict of the test songs are solved from their plays.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.machine import machine

N_ITERATIONS = 2
N_EVALUATED = 20_000
FULL_SIZE = {"users": 1_000_000, "songs": 382_410, "plays": 48_373_586}
PARTS = {"tenth": 10, "whole": 1}
PACKAGES = ("implicit", "pyarrow", "feast", "great-expectations")
VERSION = "a" * 64


@dataclass(frozen=True)
class Place:
    """Where one size's files lie."""

    folder: Path

    def __getattr__(self, name: str) -> Path:
        return self.folder / name


def component(place: Place, name: str, *, suffix: str = "", **changed) -> None:
    """Call a component's body, with the pipeline's defaults for what isn't given."""
    import inspect
    from importlib import import_module

    from kfp.dsl import Artifact

    from pipelines.train import train_pipeline

    class Metrics:
        def log_metric(self, name: str, value: float) -> None:
            pass

    body = getattr(import_module(f"components.{name}.component"), name).python_func
    defaults = train_pipeline.component_spec.inputs
    arguments = {}
    for parameter, about in inspect.signature(body).parameters.items():
        if parameter in changed:
            value = changed[parameter]
            arguments[parameter] = Artifact(uri=str(value)) if isinstance(value, Path) else value
        elif parameter == "metrics":
            arguments[parameter] = Metrics()
        elif parameter in defaults and defaults[parameter].default is not None:
            arguments[parameter] = defaults[parameter].default
        elif isinstance(about.annotation, type) and about.annotation is str:
            arguments[parameter] = ""
        else:  # an output
            arguments[parameter] = Artifact(uri=str(place.folder / f"{parameter}{suffix}"))
    body(**arguments)


def lay_clips(place: Place) -> None:
    """Files without content, in the folders of the Million Song Dataset."""
    import pyarrow.parquet as pq

    tracks = pq.read_table(place.data / "tracks.parquet", columns=["track_id"])
    for track_id in tracks.column(0).to_pylist():
        at = place.audio / track_id[2] / track_id[3]
        at.mkdir(parents=True, exist_ok=True)
        (at / f"{track_id}.ogg").touch()


def survey(place: Place) -> None:
    component(place, "survey_data", **sources(place))


def validate(place: Place) -> None:
    component(place, "validate_plays", **sources(place))


def split(place: Place) -> None:
    component(place, "split_songs", **accepted(place))


def select(place: Place) -> None:
    size = {"n_songs": 9_330, "n_users": 20_000, "selection_seed": 0, "tags": ""}
    component(place, "select_plays", **accepted(place), **size)


def factorize(engine: str):
    def by_engine(place: Place) -> None:
        component(
            place, "factorize_plays", suffix=f"_{engine}", plays=place.accepted_plays,
            split=place.split, wmf_engine=engine, n_als_iterations=N_ITERATIONS,
        )  # fmt: skip

    return by_engine


def publish(place: Place) -> None:
    """As publish_features does with factors, and then as deploy_predictor does with a champion."""
    import numpy as np

    from feature_repo.facts import SongFacts
    from feature_repo.store import FactorStore
    from needledrop.factors.sources import AUDIO, USAGE
    from needledrop.factors.wmf import Factors
    from needledrop.plays.split import Split
    from needledrop.plays.tracks import Tracks
    from needledrop.plays.triplets import Plays

    shutil.rmtree(place.store, ignore_errors=True)
    factors, plays = Factors.load(place.factors_torch), Plays.load(place.accepted_plays)
    test = plays.of_songs(Split.load(place.split).test.tolist())
    song_ids = np.concatenate([factors.song_ids, test.song_ids])
    vectors = np.concatenate([factors.song_factors, factors.fold_in_songs(test)])
    sources = np.array([USAGE] * len(factors.song_ids) + [AUDIO] * len(test.song_ids))
    facts = SongFacts.of_songs(song_ids, Tracks.load(place.accepted_tracks), plays)
    store, at = FactorStore.open(place.store), datetime.now(UTC)
    watch = Watch("publish")
    store.write_user_factors(factors.user_ids, factors.user_factors, version=VERSION, at=at)
    store.write_song_factors(song_ids, vectors, sources=sources, version=VERSION, at=at)
    watch.tell("factors offline")
    at = datetime.now(UTC)
    store.write_user_factors(
        factors.user_ids, factors.user_factors, version=VERSION, at=at, online=True
    )
    watch.tell("listeners online")
    store.write_listener_plays(plays, version=VERSION, at=at)
    watch.tell("plays of listeners offline")
    store.write_song_facts(song_ids, facts, version=VERSION, at=at, online=True)
    store.put_availability_online()
    store.write_song_factors(
        song_ids, vectors, sources=sources, version=VERSION, at=at, online=True
    )
    watch.tell("songs online")


def evaluate(place: Place) -> None:
    """The report for the factors that test songs' own plays give, over some of the listeners."""
    import numpy as np
    from scipy import sparse

    from needledrop.factors.wmf import Factors
    from needledrop.plays.split import Split
    from needledrop.plays.triplets import Plays
    from needledrop.ranking import evaluate as evaluation
    from needledrop.ranking.scores import FactorScores

    watch = Watch("evaluate")
    factors, plays = Factors.load(place.factors_torch), Plays.load(place.accepted_plays)
    test = plays.of_songs(Split.load(place.split).test.tolist())
    predicted = factors.fold_in_songs(test)
    watch.tell("loaded, and test songs folded in")
    some = np.flatnonzero(np.diff(test.user_song.indptr))
    some = np.sort(np.random.default_rng(0).permutation(some)[:N_EVALUATED])
    report = evaluation.evaluate(
        {"oracle": FactorScores(factors.user_factors[some], predicted)},
        sparse.csr_matrix(test.user_song[some]),
        test.song_ids.tolist(),
        np.bincount(test.user_song.indices, minlength=len(test.song_ids)),
        evaluation.EvaluationConfig(),
    )
    watch.tell(f"{len(some):,} listeners ranked {len(test.song_ids):,} songs")
    figures = report.models["oracle"].metrics
    print(f"  mAP@500 {figures['map_500'].mean:.4f}, AUC {figures['auc'].mean:.4f}")


def serve(place: Place) -> None:
    """Start a server on the store, wait for its first answer, and ask it one by one."""
    import json
    import statistics
    import urllib.error
    import urllib.request

    import pyarrow.parquet as pq

    from tests.serving.world import free_port

    users = pq.read_table(place.accepted_plays / "users.parquet").column(0).to_pylist()[::997]
    port = free_port()
    command = [
        *(sys.executable, "-m", "serving", "--store", str(place.store), "--no-grpc"),
        *("--predictor", "http://127.0.0.1:1", "--host", "127.0.0.1", "--http-port", str(port)),
    ]

    def ask(user: str) -> float:
        body = json.dumps({"instances": [{"user_id": user}]}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/models/recommend:predict",
            body,
            {"Content-Type": "application/json"},
        )
        started = time.perf_counter()
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["predictions"]
        return 1e3 * (time.perf_counter() - started)

    watch = Watch("serve")
    with (place.folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while True:
                try:
                    ask(users[0])
                    break
                except (OSError, urllib.error.URLError):
                    if server.poll() is not None:
                        raise SystemExit(f"the server ended; see {log.name}") from None
                    time.sleep(0.2)
            watch.tell("from its start to its first answer")
            took = [ask(user) for user in users[:500]]
            status = Path(f"/proc/{server.pid}/status").read_text()
        finally:
            server.terminate()
            server.wait(timeout=60)
    peak, held = (int(status.split(name)[1].split()[0]) / 1024 for name in ("VmHWM:", "VmRSS:"))
    print(f"  one by one: p50 {statistics.median(took):.2f} ms, slowest {max(took):.1f} ms")
    print(f"  the server's memory: peak {peak:,.0f} MB, then {held:,.0f} MB")


STEPS = {
    "clips": lay_clips,
    "survey_data": survey,
    "validate_plays": validate,
    "split_songs": split,
    "select_plays": select,
    "factorize_plays_implicit": factorize("implicit"),
    "factorize_plays_torch": factorize("torch"),
    "publish": publish,
    "evaluate": evaluate,
    "serve": serve,
}


class Watch:
    """Tells how long the parts of a step took, and what memory had been taken by then."""

    def __init__(self, step: str) -> None:
        self._step, self._started = step, time.perf_counter()

    def tell(self, what: str) -> None:
        now = time.perf_counter()
        print(
            f"  {what}: {now - self._started:.1f} s, peak by then {own_peak():,.0f} MB", flush=True
        )
        self._started = now


def own_peak() -> float:
    """Peak resident memory of this process in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def sources(place: Place) -> dict[str, str]:
    return {
        "plays": str(place.data / "plays.parquet"),
        "tracks": str(place.data / "tracks.parquet"),
        "audio": str(place.audio),
    }


def accepted(place: Place) -> dict[str, Path | str]:
    return {
        "plays": place.accepted_plays,
        "tracks": place.accepted_tracks,
        "audio": str(place.audio),
    }


def draw(place: Place, sizes: dict[str, int]) -> list[str]:
    arguments = [f"--{name}={size}" for name, size in sizes.items()]
    return [sys.executable, "-m", "needledrop.demo", "plays", str(place.data), *arguments]


def run(step: str, command: list[str]) -> None:
    """Run a step in a process of its own; print its seconds, processor-seconds and peak."""
    started = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{step} failed with status {os.waitstatus_to_exitcode(status)}")
    print(
        f"{step}: {seconds:.1f} s, {usage.ru_utime + usage.ru_stime:.1f} processor-s, "
        f"peak {usage.ru_maxrss / 1024:,.0f} MB",
        flush=True,
    )


def main() -> None:
    """Draw the plays, run the steps, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--steps", nargs="+", choices=["draw", *STEPS], default=["draw", *STEPS])
    for name, default in FULL_SIZE.items():
        parser.add_argument(f"--{name}", type=int, default=default, help="of the whole")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_this_process:
        STEPS[options.steps[0]](Place(options.folder))
        return
    print(machine(*PACKAGES), flush=True)
    for part in options.parts:
        place = Place((options.folder / part).absolute())
        place.folder.mkdir(parents=True, exist_ok=True)
        sizes = {name: getattr(options, name) // PARTS[part] for name in FULL_SIZE}
        load = os.getloadavg()[0]
        print(f"{part}: {', '.join(f'{n:,} {name}' for name, n in sizes.items())}; load {load:.1f}")
        for step in options.steps:
            own = [sys.executable, __file__, str(place.folder), "--steps", step]
            run(step, draw(place, sizes) if step == "draw" else [*own, "--in-this-process"])


if __name__ == "__main__":
    main()
