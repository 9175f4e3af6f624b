"""The decorator of every step, and the image that it runs in.

One definition serves the laptop and the cluster: a lightweight component whose body imports the
library from the image (or, with kfp's local runner, from this checkout). Nothing is installed when
a step starts.
"""

import os
from collections.abc import Callable
from typing import Any

from kfp import dsl

IMAGE = os.environ.get("NEEDLEDROP_IMAGE", "needledrop-python:0.1.0")
"""The image of the steps; set NEEDLEDROP_IMAGE to compile for a registry of your own."""


def step(function: Callable[..., Any]) -> Any:
    """Make a KFP component of a function whose body imports all that it uses."""
    return dsl.component(base_image=IMAGE, install_kfp_package=False)(function)
