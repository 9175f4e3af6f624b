"""What a server is refused for at once, before the seconds that torch and KServe take to import."""

import socket
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


def check_port(host: str, port: int) -> None:
    """Find out whether a port is free.

    Raises:
        ConfigRejected: it isn't, or there is no such port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed a moment ago is free
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "expected 0 to 65535"
            raise ConfigRejected(
                f"port {port} on {host} can't be listened on ({reason}); stop what uses it, or "
                "name another with --http-port and --grpc-port"
            ) from None
