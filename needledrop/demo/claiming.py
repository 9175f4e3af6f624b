"""A folder that is ours: its parameters are the first thing in it, and stay the same."""

from collections.abc import Mapping
from pathlib import Path

from needledrop.artifacts import read_json, write_json
from needledrop.drafts import remove_leftovers
from needledrop.errors import ArtifactBroken, ConfigRejected


def claimed_folder(
    out: Path, marker_name: str, parameters: Mapping[str, object], *, what: str
) -> None:
    """Make ``out`` ours, or see that it is ours already and meant for the same parameters.

    Args:
        out: the folder.
        marker_name: the file that holds the parameters.
        parameters: what would give other files if it were otherwise.
        what: what the folder may hold, for messages.

    Raises:
        ConfigRejected: it is something else, or was made with other parameters.
        ArtifactBroken: the parameters in it can't be read.
    """
    if out.exists() and not out.is_dir():
        raise ConfigRejected(f"expected a folder at {out}, found a file; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    marker = out / marker_name
    if not marker.exists():
        remove_leftovers(out)
        if any(out.iterdir()):
            raise ConfigRejected(
                f"expected {out} to be empty or {what}, found other files; choose another folder"
            )
        write_json(marker, parameters)
    found = read_json(marker)
    if not isinstance(found, dict):
        raise ArtifactBroken(f"{marker} holds no parameters; delete {out} and run again")
    differences = [
        f"{name} {found.get(name)} (asked for: {wanted})"
        for name, wanted in parameters.items()
        if found.get(name) != wanted
    ]
    if differences:
        raise ConfigRejected(
            f"{out} was made with {', '.join(differences)}; "
            "ask for the same, or choose another folder"
        )
