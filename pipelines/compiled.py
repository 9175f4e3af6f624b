"""The pipelines as YAML for Kubeflow, committed beside their definitions."""

import tempfile
from pathlib import Path

from kfp import compiler

from pipelines.known import NAMES, pipeline_named

_FOLDER = Path(__file__).parent / "compiled"


def compile_all(folder: Path = _FOLDER) -> list[Path]:
    """Write every pipeline's YAML; the same definition gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for pipeline in map(pipeline_named, NAMES):
        files.append(folder / f"{pipeline.name}.yaml")
        compiler.Compiler().compile(pipeline, str(files[-1]))
    return files


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
