"""Trains a model, or takes the one that an earlier run has finished with the same everything."""

import shutil
import time
from pathlib import Path

from components.journal import Journal
from components.train_paper_model.fitting import fit_model
from components.train_paper_model.material import PaperMaterial
from components.train_paper_model.request import PaperRequest
from needledrop.artifacts import (
    fingerprint_of_code,
    fingerprint_of_json,
    read_json,
    whole_folder,
    write_json,
)
from needledrop.encoders.device import torch_device
from needledrop.encoders.saved import save_model
from needledrop.storage.opening import below, place_at

RECORD = "training.json"
MODEL = "model"


def train_or_take(
    request: PaperRequest,
    material: PaperMaterial,
    workspace: str,
    n_gpus: str,
    out: Path,
    journal: Journal,
) -> None:
    """Write the model and the record of its training; finished ones are kept in the workspace."""
    settings = request.used_settings()
    name = fingerprint_of_json([material.fingerprint, settings, fingerprint_of_code()])[:16]
    finished = place_at(below(workspace, "paper_models"))
    if name not in finished.folders():
        with finished.new_folder(name) as folder:
            checkpoint = below(workspace, f"checkpoints/{name}-paper.pt")
            _train(request, material, checkpoint, n_gpus, folder, journal)
    else:
        journal.say(f"{request.key}: taken from an earlier run")
    with whole_folder(out) as folder:
        shutil.copytree(finished.folder(name), folder, dirs_exist_ok=True)
    record = read_json(out / RECORD)
    journal.record(record["figures"])
    journal.say(
        f"{request.key}: validation mAP@500 {record['figures']['validation_map_500']:.4f} after "
        f"{record['training']['wall_seconds']:.1f} s"
    )


def _train(
    request: PaperRequest,
    material: PaperMaterial,
    checkpoint: str,
    n_gpus: str,
    folder: Path,
    journal: Journal,
) -> None:
    # What all models are fitted on is opened before the clock starts.
    material.validation_listeners, material.song_factors  # noqa: B018
    if request.model in ("mlr", "linear", "mlp"):
        material.known_bags  # noqa: B018
    if request.model == "cnn_wpe":
        material.listeners  # noqa: B018
    wall, cpu = time.perf_counter(), time.process_time()
    model, figures = fit_model(request, material, checkpoint, journal)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    is_network = request.model.startswith("cnn")
    save_model(model, folder / MODEL)
    write_json(
        folder / RECORD,
        {
            "key": request.key,
            "n_gpus": n_gpus,
            "figures": {**figures, "wall_seconds": wall, "cpu_seconds": cpu},
            "training": {
                "wall_seconds": wall,
                "cpu_seconds": cpu,
                "n_parameters": int(figures["n_parameters"]),
                "device": torch_device(request.training.device).type if is_network else "cpu",
                "is_whole": not figures.get("n_epochs_before"),
            },
        },
    )
