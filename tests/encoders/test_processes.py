"""Two gloo processes give the losses and the weights of one, stop with it, and resume it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from needledrop.encoders.augmentation import Augmentation, scaled_and_masked
from needledrop.encoders.processes import Processes, joined_processes
from needledrop.errors import ConfigRejected
from tests.encoders.shared_training import trained

ROOT = Path(__file__).parents[2]
# 13 songs by 2 windows: batches of 9, 9 and 8, whose parts are 5 and 4 windows, or 4 and 4.
SETTINGS = {
    "n_epochs": 4,
    "windows_per_song": 2,
    "batch_size": 9,
    "learning_rate": 3e-3,
    "mixup": 0.2,
    "min_epochs": 1,
    "patience_epochs": 2,
    "device": "cpu",
}


def request(heard, **options) -> dict:
    store, factors = heard
    return {
        "features": str(Path(store._place.uri).parent / "features.json"),
        "targets": factors[:13].tolist(),
        "settings": SETTINGS,
        "scores": [0.1, 0.2, 0.3, 0.4],
        **options,
    }


@pytest.fixture(scope="module")
def trainings(heard, tmp_path_factory) -> dict[str, dict]:
    state = str(tmp_path_factory.mktemp("state") / "state.pt")
    kept = {"checkpoint": state, "fingerprint": "this run", "dropout": 0.3}
    return {
        "plain": request(heard),
        "early": request(heard, scores=[0.5, 0.4, 0.3, 0.9]),
        "whole": request(heard, dropout=0.3),
        "stopped": request(heard, **kept, stop_after=1),
        "resumed": request(heard, **kept, scores=[0.3, 0.4]),
        "tiny batch": request(heard, settings={**SETTINGS, "batch_size": 1}),
    }


@pytest.fixture(scope="module")
def by_two(trainings, tmp_path_factory) -> list[dict[str, dict]]:
    """What each of two processes ends each training with."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "trainings.json").write_text(json.dumps(trainings))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "-m", "tests.encoders.shared_training"),
            *(str(folder / "trainings.json"), str(folder)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def assert_alike(ours: dict, theirs: dict) -> None:
    """To the rounding of float32, which Adam's quotients make larger."""
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-5)
    assert ours["scores"] == theirs["scores"]
    for name, tensor in theirs["weights"].items():
        torch.testing.assert_close(ours["weights"][name], tensor, rtol=1e-3, atol=1e-4)


def assert_equal(ours: dict, theirs: dict) -> None:
    assert (ours["losses"], ours["scores"]) == (theirs["losses"], theirs["scores"])
    for name, tensor in theirs["weights"].items():
        assert torch.equal(ours["weights"][name], tensor)


@pytest.mark.long
@pytest.mark.parametrize(("training", "n_epochs"), [("plain", 4), ("early", 3)])
def test_two_processes_give_the_losses_and_weights_of_one(trainings, by_two, training, n_epochs):
    alone = trained(**trainings[training])
    first, second = (ends[training] for ends in by_two)
    assert len(alone["losses"]) == n_epochs
    assert_alike(first, alone)
    assert_equal(second, first)
    assert (first["n_asked"], second["n_asked"]) == (n_epochs, 0)  # the first alone validates


@pytest.mark.long
def test_they_go_on_where_they_stopped_and_one_process_does_too(trainings, by_two):
    first, second = by_two
    assert first["stopped"] == second["stopped"] == {"error": "Stopped: "}
    assert_equal(first["resumed"], first["whole"])
    assert_equal(second["resumed"], first["whole"])
    # One process takes up what two have kept: nothing is left to do, and the weights are there.
    alone = trained(**{**trainings["resumed"], "scores": []})
    assert alone["n_asked"] == 0
    assert_equal(alone, first["whole"])


@pytest.mark.long
def test_a_batch_smaller_than_the_processes_is_refused(by_two):
    for ends in by_two:
        assert ends["tiny batch"]["error"].startswith(
            "ConfigRejected: training.batch_size: expected a window or more for each of 2 "
            "processes, got 1"
        )


@pytest.mark.parametrize("n_processes", [1, 2, 3, 5])
@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_the_parts_together_are_the_batch(n_processes, mixup):
    generator = np.random.default_rng(0)
    windows, targets = torch.randn(11, 6, 40), torch.randn(11, 3)
    drawn = Augmentation.draw(generator, 11, 40, masked_bands=24, mixup=mixup)

    def augmented(needed: np.ndarray, part: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        masked = scaled_and_masked(windows[needed], None, drawn.masked_of(needed))
        return drawn.blended(masked, targets[needed], part)

    everything = augmented(np.arange(11), np.arange(11))
    parts = []
    for rank in range(n_processes):
        processes = Processes(rank, n_processes)
        part = processes.part(11)
        parts.append(augmented(drawn.needed(part), part))
        assert processes.share(len(part), 11) == pytest.approx(len(part) * n_processes / 11)
    for number in (0, 1):
        assert torch.equal(torch.cat([part[number] for part in parts]), everything[number])
    assert not torch.equal(everything[0], windows)


@pytest.mark.parametrize(
    ("variable", "value"), [("WORLD_SIZE", "two"), ("WORLD_SIZE", "-2"), ("RANK", "")]
)
def test_half_a_launcher_is_refused(monkeypatch, variable, value):
    for name, given in {"WORLD_SIZE": "2", "RANK": "0", variable: value}.items():
        monkeypatch.setenv(name, given)
    with pytest.raises(ConfigRejected, match=f"expected {variable} to be a number"):
        joined_processes(torch.device("cpu"))


def test_without_a_launcher_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = joined_processes(torch.device("cpu"))
    assert alone == Processes(0, 1)
    assert alone.by_the_first(lambda: 7) == 7
    network = torch.nn.BatchNorm2d(3)
    assert alone.shared(network) is network
