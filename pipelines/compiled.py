"""The pipelines as YAML for Kubeflow, committed beside their definitions."""

import tempfile
from pathlib import Path

from kfp import compiler

from pipelines.train import train_pipeline

_FOLDER = Path(__file__).parent / "compiled"
_PIPELINES = {"needledrop-train.yaml": train_pipeline}


def compile_all(folder: Path = _FOLDER) -> list[Path]:
    """Write every pipeline's YAML; the same definition gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pipeline in _PIPELINES.items():
        compiler.Compiler().compile(pipeline, str(folder / name))
    return [folder / name for name in _PIPELINES]


def stale_files() -> list[Path]:
    """Return the committed files that differ from what would be written now."""
    with tempfile.TemporaryDirectory() as temporary:
        fresh = compile_all(Path(temporary))
        return [
            _FOLDER / path.name
            for path in fresh
            if not (_FOLDER / path.name).is_file()
            or (_FOLDER / path.name).read_bytes() != path.read_bytes()
        ]
