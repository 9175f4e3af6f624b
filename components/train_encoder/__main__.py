"""What a TrainJob runs in each process: torchrun -m components.train_encoder LOCATION.

Every process trains its part. The first one speaks, assembles the bundle and leaves it at the
location; the others end when the networks are trained.
"""

import argparse
import contextlib
import dataclasses
import os
from typing import Any, NoReturn

from components.journal import Journal, journal
from components.train_encoder.launching import fit, leave, material_of
from components.train_encoder.material import Material
from components.train_encoder.request import Inputs, TrainingRequest
from needledrop.encoders.device import torch_device
from needledrop.encoders.processes import joined_processes, part_from_processes
from needledrop.storage.opening import place_at


class _Helped(Exception):
    """A process that isn't the first has done its part."""


class _HelpersMaterial(Material):
    """Material without a bundle at the end."""

    def bundle(self, *_: Any) -> NoReturn:
        raise _Helped


def main(location: str) -> None:
    """Train what was handed over at a location."""
    place = place_at(location)
    if os.environ.get("RANK", "0") == "0":
        with journal("train_encoder_cnn") as log:
            bundle, page = fit(*_asked(location, Material), log)
            with place.new_folder("outcome") as folder:
                leave(bundle, page, log, folder)
    else:
        with (
            open(os.devnull, "w") as silence,  # noqa: PTH123
            contextlib.redirect_stdout(silence),
            contextlib.suppress(_Helped),
        ):
            fit(*_asked(location, _HelpersMaterial), Journal("helper"))
    part_from_processes()


def _asked(location: str, kind: type[Material]) -> tuple[Material, TrainingRequest]:
    """Meet the others; return what is learned from, and what is asked."""
    folder = place_at(location).folder("inputs")
    request = TrainingRequest.load(folder / "request.json")
    joined_processes(torch_device(request.training.device))
    material = material_of(Inputs.within(folder), request)
    return kind(
        **{one.name: getattr(material, one.name) for one in dataclasses.fields(Material)}
    ), request


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train what a step has handed over.")
    parser.add_argument("location", help="folder or s3:// URI with inputs")
    main(parser.parse_args().location)
