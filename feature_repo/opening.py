"""A store's folder: made, registered with Feast, and opened.

The folder is a Feast repository of its own, so ``feast -c FOLDER ...`` works on it: it holds the
profile as ``feature_store.yaml``, and one Python file that imports the definitions. Without that
file, ``feast apply`` would find no definitions and delete all views.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from feature_repo.access import failures_explained, locked
from feature_repo.parts import Folder
from needledrop.artifacts import fingerprint_of_file, read_json, whole_file, write_json
from needledrop.errors import ArtifactBroken, ConfigRejected

if TYPE_CHECKING:
    import feast

VIEWS = ("user_factors", "song_factors", "song_audio_features")

_HERE = Path(__file__).parent
_MARKER = "definitions.json"
_DEFINITIONS = ("entities", "sources", "views", "services")
_DEFINITIONS_FILE = '''"""What this store keeps, for `feast apply`: the views of feature_repo."""

from feature_repo.services import *  # noqa: F403
'''


def profile_path(profile: str | Path | None) -> Path:
    """The file of a profile.

    Args:
        profile: the name of a file in ``feature_repo/profiles`` or a path; by default what
            ``NEEDLEDROP_STORE_PROFILE`` says, and else ``local``.

    Raises:
        ConfigRejected: there is no such file.
    """
    chosen = str(profile or os.environ.get("NEEDLEDROP_STORE_PROFILE") or "local")
    named = _HERE / "profiles" / f"{chosen}.yaml"
    path = named if named.is_file() else Path(chosen)
    if not path.is_file():
        known = sorted(file.stem for file in named.parent.glob("*.yaml"))
        raise ConfigRejected(
            f"expected a store profile, one of {known} or the path of a YAML file, got {chosen!r}"
        )
    return path


def opened_store(folder: Path, profile: Path, wait_seconds: float) -> "feast.FeatureStore":
    """Open the store of a folder; make and register what is not there yet.

    Raises:
        ArtifactBroken: the store is damaged, or held by another process for too long.
    """
    with failures_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        store = _registered_store(folder, profile)
        if store is None:
            with locked(folder, wait_seconds=wait_seconds):
                store = _registered_store(folder, profile) or _register(folder, profile)
        return store


def files_of(folder: Path, *names: str) -> Folder:
    """A folder of the store's files, wherever ``NEEDLEDROP_STORE_ROOT`` puts them."""
    from feature_repo.sources import STORE_ROOT

    return Folder("/".join((STORE_ROOT or str(folder), *names)))


def _registered_store(folder: Path, profile: Path) -> "feast.FeatureStore | None":
    """The store, when these very definitions are registered and its local files are there."""
    from feature_repo.engine import feast

    if not (folder / _MARKER).is_file():
        return None
    try:
        if read_json(folder / _MARKER) != _fingerprints(profile):
            return None
        store = feast.FeatureStore(repo_path=str(folder))
        views = {view.name for view in store.list_feature_views()}
    except (ArtifactBroken, DecodeError, OSError):
        return None
    online_file = _online_file(store)
    is_whole = views.issuperset(VIEWS) and (online_file is None or online_file.is_file())
    return store if is_whole else None


def _register(folder: Path, profile: Path) -> "feast.FeatureStore":
    """Write the folder's own files and apply the definitions; the store's lock is held."""
    from feature_repo import services
    from feature_repo.engine import feast

    for name, text in (
        ("feature_store.yaml", profile.read_text(encoding="utf-8")),
        ("needledrop_definitions.py", _DEFINITIONS_FILE),
    ):
        with whole_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    store = feast.FeatureStore(repo_path=str(folder))
    _remove_what_was_lost(folder, store)
    for view in VIEWS:
        files_of(folder, "offline", view).make()
    store.apply([getattr(services, name) for name in services.__all__])
    write_json(folder / _MARKER, _fingerprints(profile))
    return store


def _remove_what_was_lost(folder: Path, store: "feast.FeatureStore") -> None:
    """Remove a registry that a killed process left damaged, and markers of rows that are gone."""
    try:
        store.list_feature_views()
    except DecodeError:
        if store.config.registry.registry_type != "file":
            raise
        (folder / store.config.registry.path).unlink()  # It holds nothing but the definitions.
    online_file = _online_file(store)
    if online_file is not None and not online_file.is_file():
        markers = files_of(folder, "online")
        for name in markers.names():
            markers.remove(name)


def _online_file(store: "feast.FeatureStore") -> Path | None:
    """The SQLite file of the online store; None when it is a server."""
    config = store.config.online_store
    return Path(store.repo_path) / config.path if config.type == "sqlite" else None


def _fingerprints(profile: Path) -> dict[str, str]:
    """What a store was registered from; another value means that it must be registered again."""
    from feature_repo.sources import STORE_ROOT

    files = [profile, *(_HERE / f"{name}.py" for name in _DEFINITIONS)]
    return {"root": STORE_ROOT} | {file.name: fingerprint_of_file(file) for file in files}
