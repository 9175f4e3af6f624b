"""A store: made, registered with Feast, and opened; in a folder, or on a cluster's engines.

A store in a folder is a Feast repository of its own, so ``feast -c FOLDER ...`` works on it: it
holds the profile as ``feature_store.yaml``, and one Python file that imports the definitions.
Without that file, ``feast apply`` would find no definitions and delete all views. A store at a URI
has such a folder too, in this machine's cache, with nothing in it that isn't elsewhere.
"""

import copy
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from feature_repo.access import failures_explained
from feature_repo.locks import FileLock, Lock, PostgresLock
from feature_repo.markers import FileMarkers, Markers, RedisMarkers
from feature_repo.parts import Folder
from needledrop.artifacts import fingerprint_of_bytes, fingerprint_of_file, whole_file
from needledrop.errors import ArtifactBroken, ConfigRejected, StoreMissing
from needledrop.storage.cache import cache_folder
from needledrop.storage.opening import is_remote

if TYPE_CHECKING:
    import feast

KEYS = {
    "user_factors": "user_id",
    "song_factors": "song_id",
    "song_audio_features": "song_id",
    "listener_plays": "user_id",
    "song_facts": "song_id",
    "song_availability": "song_id",
}
"""The key column of each view."""

_HERE = Path(__file__).parent
_MARKER = "definitions.json"
_DEFINITIONS = ("entities", "sources", "views", "services")
_DEFINITIONS_FILE = '''"""What this store keeps, for `feast apply`: the views of feature_repo."""

from feature_repo.services import *  # noqa: F403
'''
_DEFINITIONS_OF_A_URI = '''"""What this store keeps, for `feast apply`: see feature_repo."""

import os

os.environ["NEEDLEDROP_STORE_ROOT"] = {root!r}
from feature_repo.services import *  # noqa: E402, F403
'''


@dataclass(frozen=True)
class OpenedStore:
    """A store and what keeps it.

    Attributes:
        name: its folder or URI, for messages.
        feast: opened.
        lock: what keeps other writers out.
        markers: which online release is whole.
    """

    name: str
    feast: "feast.FeatureStore"
    lock: Lock
    markers: Markers


def profile_path(profile: str | Path | None, *, of_uri: bool = False) -> Path:
    """The file of a profile.

    Args:
        profile: the name of a file in ``feature_repo/profiles`` or a path; by default what
            ``NEEDLEDROP_STORE_PROFILE`` says, and else ``local``, or ``cluster`` at a URI.
        of_uri: whether the store lies at a URI.

    Raises:
        ConfigRejected: there is no such file, or it asks for what the environment doesn't say.
    """
    default = "cluster" if of_uri else "local"
    chosen = str(profile or os.environ.get("NEEDLEDROP_STORE_PROFILE") or default)
    named = _HERE / "profiles" / f"{chosen}.yaml"
    path = named if named.is_file() else Path(chosen)
    if not path.is_file():
        known = sorted(file.stem for file in named.parent.glob("*.yaml"))
        raise ConfigRejected(
            f"expected a store profile, one of {known} or the path of a YAML file, got {chosen!r}"
        )
    asked = re.findall(r"^[^#\n]*\$\{(\w+)\}", path.read_text(encoding="utf-8"), re.MULTILINE)
    if missing := [name for name in asked if not os.environ.get(name)]:
        raise ConfigRejected(
            f"the store profile {chosen} expects {' and '.join(missing)} in the environment, found "
            "nothing there; feature_repo/README.md says what they hold"
        )
    if broken := [name for name in asked if re.search(r"['\s]", os.environ[name])]:
        # Feast puts the values between quotes, and an error about them would show them.
        raise ConfigRejected(
            f"expected {' and '.join(broken)} without quotes, blanks and line breaks; in a URL "
            "write them as %27, %20 and %0A"
        )
    return path


def opened_store(
    location: str | Path, profile: str | Path | None, wait_seconds: float, *, make: bool = True
) -> OpenedStore:
    """Open the store of a folder or URI; register again what was registered otherwise.

    Args:
        location: its folder or URI.
        profile: which engines keep it; see :func:`profile_path`.
        wait_seconds: how long to wait for another process that is writing.
        make: whether it is made where there is none; else nothing is written there.

    Raises:
        ConfigRejected: there is no such profile, or it doesn't fit the location.
        StoreMissing: there is no store, and none is to be made.
        ArtifactBroken: the store is damaged, or held by another process for too long.
        StoreUnreachable: one of its engines doesn't answer.
    """
    at_uri = is_remote(location)
    name = str(location).rstrip("/") if at_uri else str(Path(location).absolute())
    yaml = profile_path(profile, of_uri=at_uri)
    folder = cache_folder(name) / "feast" if at_uri else Path(name)
    root = name if at_uri else None
    with failures_explained(name):
        if not make and Folder(name).read_json(_MARKER) is None:
            raise StoreMissing(
                f"expected a feature store at {name}, found none; look at its name, or run a "
                "pipeline that publishes there first"
            )
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(yaml, name) if at_uri else FileLock(folder)
        store = None if at_uri else _registered_store(folder, yaml, root)
        if store is None:
            # Even opening a registry in Postgres makes tables, which two should not do at once.
            registering = _lock(yaml, f"{name}#registering") if at_uri else lock
            with registering.held(wait_seconds=wait_seconds):
                store = _registered_store(folder, yaml, root) or _register(folder, yaml, root)
        from feature_repo.engine import quick_first_read

        quick_first_read(store)
        return OpenedStore(name, store, lock, _markers(store, folder, root))


def files_of(root: str | Path, *names: str) -> Folder:
    """A folder of a store's files, wherever ``NEEDLEDROP_STORE_ROOT`` puts those of a folder."""
    from feature_repo.sources import STORE_ROOT

    at = root if is_remote(root) else STORE_ROOT or str(root)
    return Folder("/".join((str(at), *names)))


def _lock(profile: Path, name: str) -> Lock:
    """The lock of a store at a URI: its registry's, which must be one for several machines."""
    import yaml

    content = yaml.safe_load(profile.read_text(encoding="utf-8"))
    address = os.path.expandvars(str(content.get("registry", {}).get("path", "")))
    if not address.startswith("postgres"):
        raise ConfigRejected(
            f"the store {name.split('#')[0]} lies at a URI, which any machine may open, but the "
            f"profile {profile.stem} keeps its registry on one: expected a registry in Postgres, "
            "as in the profile cluster (NEEDLEDROP_STORE_PROFILE)"
        )
    return PostgresLock(re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", address), name)


def _markers(store: "feast.FeatureStore", folder: Path, root: str | None) -> Markers:
    config = store.config.online_store
    if config.type == "redis":
        try:
            client = store._get_provider().online_store._get_client(config)
        except (LookupError, TypeError, ValueError):  # they would show the password
            raise ConfigRejected(
                "expected the address of a Redis such as host:6379,password=..., got something "
                "else; correct NEEDLEDROP_REDIS"
            ) from None
        return RedisMarkers(client, store.project)
    return FileMarkers(files_of(root or folder, "online"))


def _registered_store(folder: Path, profile: Path, root: str | None) -> "feast.FeatureStore | None":
    """The store, when these very definitions are registered and its local files are there."""
    import yaml

    from feature_repo.engine import feast

    try:
        if Folder(root or str(folder)).read_json(_MARKER) != _fingerprints(profile, root):
            return None
        if root:
            _write_repository(folder, profile, root)
        store = feast.FeatureStore(repo_path=str(folder))
        views = {view.name for view in store.list_feature_views()}
    except (ArtifactBroken, DecodeError, OSError):
        return None
    except (yaml.YAMLError, feast.repo_config.FeastConfigError, TypeError, UnicodeDecodeError):
        return None  # its copy of the profile is damaged, which is written again
    online_file = _online_file(store)
    is_whole = views.issuperset(KEYS) and (online_file is None or online_file.is_file())
    return store if is_whole else None


def _register(folder: Path, profile: Path, root: str | None) -> "feast.FeatureStore":
    """Write the folder's own files and apply the definitions; the store's lock is held."""
    from feature_repo import services
    from feature_repo.engine import feast

    _write_repository(folder, profile, root)
    store = feast.FeatureStore(repo_path=str(folder))
    _remove_what_was_lost(folder, store)
    for view in KEYS:
        files_of(root or folder, "offline", view).make()
    store.apply([_rooted(getattr(services, name), root) for name in services.__all__])
    Folder(root or str(folder)).write_json(_MARKER, _fingerprints(profile, root))
    return store


def _write_repository(folder: Path, profile: Path, root: str | None) -> None:
    """Make the folder one that Feast, and its command, can open."""
    yaml = profile.read_text(encoding="utf-8")
    definitions = _DEFINITIONS_FILE
    if root:
        # Other stores may use the same engines.
        project = f"needledrop_{fingerprint_of_bytes(root.encode())[:12]}"
        yaml = re.sub(r"^project:.*$", f"project: {project}", yaml, flags=re.MULTILINE)
        definitions = _DEFINITIONS_OF_A_URI.format(root=root)
    for name, text in (
        ("feature_store.yaml", yaml),
        ("needledrop_definitions.py", definitions),
    ):
        with whole_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _rooted(definition: Any, root: str | None) -> Any:
    """A view whose parts lie at a URI; everything else as it is."""
    from feature_repo.engine import feast
    from feature_repo.sources import parts_of

    if root is None or not isinstance(definition, feast.FeatureView):
        return definition
    view = copy.copy(definition)
    source = definition.batch_source
    view.batch_source = parts_of(definition.name, source.description, root)
    return view


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


def _fingerprints(profile: Path, root: str | None) -> dict[str, str]:
    """What a store was registered from; another value means that it must be registered again."""
    from feature_repo.sources import STORE_ROOT

    files = [profile, *(_HERE / f"{name}.py" for name in _DEFINITIONS)]
    return {"root": root or STORE_ROOT} | {file.name: fingerprint_of_file(file) for file in files}
