"""Where a registry or a store is said to be: looked at before torch and KServe are imported."""

from pathlib import Path

from needledrop.errors import ConfigRejected


def check_registry(registry: str) -> None:
    """Refuse what can't become a registry; an empty or absent folder may fill later.

    Raises:
        ConfigRejected: it is a file, a run's folder, or a URI of another kind.
    """
    from needledrop.storage.opening import is_remote, place_at

    place_at(registry)
    if is_remote(registry):
        return
    folder = Path(registry)
    if folder.exists() and not folder.is_dir():
        raise ConfigRejected(f"--registry {folder}: expected a folder, got a file")
    if (folder / "registry").is_dir():
        raise ConfigRejected(
            f"--registry {folder}: expected a registry, got a run's folder; "
            f"give --registry {folder / 'registry'}"
        )


def check_store(store: str) -> None:
    """Refuse what can't become a store; an empty folder, or a URI, may fill later.

    An absent folder is refused: it is more often mistyped than a run's that is still to come.

    Raises:
        ConfigRejected: it is absent, a file, a run's folder, or a URI of another kind.
    """
    from needledrop.storage.opening import is_remote, place_at

    place_at(store)
    if is_remote(store):
        return
    folder = Path(store)
    if not folder.exists():
        raise ConfigRejected(
            f"--store {folder}: expected the folder of a feature store, found none; look at its "
            "name, or make the folder, to be filled by a run that publishes there"
        )
    if not folder.is_dir():
        raise ConfigRejected(f"--store {folder}: expected a folder, got a file")
    if (folder / "store").is_dir():
        raise ConfigRejected(
            f"--store {folder}: expected a feature store, got a run's folder; "
            f"give --store {folder / 'store'}"
        )
