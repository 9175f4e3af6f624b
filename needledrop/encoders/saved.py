"""Models on disk: one folder a model, safetensors and JSON, never pickle.

::

    model.json            the name and the settings
    model.safetensors     the tensors
    bag_of_words/         of models that hear by it
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from needledrop.artifacts import read_json, whole_folder, write_json
from needledrop.audio.bag_of_words import BagOfWords
from needledrop.encoders.chance import ChanceModel
from needledrop.encoders.cnn import CnnEncoder
from needledrop.encoders.cnn2014 import Cnn2014Encoder
from needledrop.encoders.linear import LinearEncoder
from needledrop.encoders.mlp import MlpEncoder
from needledrop.encoders.mlr import MlrModel
from needledrop.encoders.model import Model, ModelContent
from needledrop.encoders.oracle import OracleModel
from needledrop.errors import ArtifactBroken

KINDS: Mapping[str, type[Model]] = {
    kind.name: kind
    for kind in (
        ChanceModel,
        MlrModel,
        LinearEncoder,
        MlpEncoder,
        CnnEncoder,
        Cnn2014Encoder,
        OracleModel,
    )
}
_BAG_OF_WORDS = "bag_of_words"


def save_model(model: Model, folder: Path) -> None:
    """Write a model whole or not at all."""
    content = model.content()
    with whole_folder(folder) as temporary:
        save_tensors(content, temporary / "model.safetensors")
        write_json(
            temporary / "model.json", {"name": model.name, "settings": dict(content.settings)}
        )
        save_words(content, temporary)


def load_model(folder: Path, device: torch.device | None = None) -> Model:
    """Read what :func:`save_model` wrote.

    Args:
        folder: of the model.
        device: where its networks then hear clips; the CPU without it.

    Raises:
        ArtifactBroken: something is missing or doesn't fit together.
    """
    about = read_json(folder / "model.json")
    try:
        tensors = load_file(folder / "model.safetensors")
        model = model_from(about["name"], tensors, about["settings"], folder)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ArtifactBroken(
            f"{folder}: expected a whole model, but its files don't fit together ({error}); "
            "train it again"
        ) from error
    if device is not None and isinstance(model, CnnEncoder):
        model.network.to(device)
    return model


def save_tensors(content: ModelContent, path: Path) -> None:
    """Write a model's tensors as safetensors."""
    save_file({name: np.ascontiguousarray(array) for name, array in content.tensors.items()}, path)


def save_words(content: ModelContent, folder: Path) -> None:
    """Write a model's bag of words, where it has one, into a folder."""
    if content.bag_of_words is not None:
        content.bag_of_words.save(folder / _BAG_OF_WORDS)


def model_from(
    name: str, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any], folder: Path
) -> Model:
    """Make a model from its tensors, its settings and a folder with its bag of words.

    Raises:
        ValueError: there is no such model.
    """
    if name not in KINDS:
        raise ValueError(f"unknown model {name!r}")
    has_words = (folder / _BAG_OF_WORDS).is_dir()
    words = BagOfWords.load(folder / _BAG_OF_WORDS) if has_words else None
    return KINDS[name].from_content(ModelContent(tensors, settings, words))
