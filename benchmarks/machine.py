"""The machine that a figure was measured on."""

import platform
from pathlib import Path


def machine() -> str:
    """Processors and Python, in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"machine: {len(models)} cores {models[0]}; Python {platform.python_version()}"
