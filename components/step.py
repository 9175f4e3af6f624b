"""The decorator of every step, and the images that they run in.

One definition serves the laptop and the cluster: a lightweight component whose body imports the
library from the image (or, with kfp's subprocess runner, from this checkout). Nothing is installed
when a step starts.

The images are named ``<prefix>data:<tag>`` and ``<prefix>train:<tag>``. To compile for a registry
of your own, set NEEDLEDROP_IMAGE_PREFIX (such as ``registry.example/team/needledrop-``) and
NEEDLEDROP_IMAGE_TAG.
"""

import os
from collections.abc import Callable
from typing import Any, Literal

from kfp import dsl

Image = Literal["data", "train", "serve"]


def image(name: Image) -> str:
    """Return the reference of an image: ``data`` for a CPU, ``train`` with CUDA, ``serve``."""
    prefix = os.environ.get("NEEDLEDROP_IMAGE_PREFIX", "needledrop-")
    return f"{prefix}{name}:{os.environ.get('NEEDLEDROP_IMAGE_TAG', '0.1.0')}"


def step(function: Callable[..., Any]) -> Any:
    """Make a KFP component of a function whose body imports all that it uses."""
    return dsl.component(base_image=image("data"), install_kfp_package=False)(function)


def training_step(function: Callable[..., Any]) -> Any:
    """Make a KFP component that may use a GPU; else as :func:`step`."""
    return dsl.component(base_image=image("train"), install_kfp_package=False)(function)
