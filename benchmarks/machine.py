"""The machine that a figure was measured on, and the packages that did the work."""

import platform
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("numpy", "scipy", "torch")


def machine(*packages: str) -> str:
    """Processors, GPUs, Python, the packages of every figure and those named, in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    drivers = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    gpus = [driver.read_text().split("Model:", 1)[1].splitlines()[0].strip() for driver in drivers]
    cards = f", {len(gpus)} GPU {gpus[0]}" if gpus else ", no GPU"
    versions = ", ".join(f"{one} {version(one)}" for one in (*_PACKAGES, *packages))
    return (
        f"machine: {len(models)} cores {models[0]}{cards}; Python {platform.python_version()}, "
        f"{versions}"
    )
