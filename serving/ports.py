"""Ports to listen on: looked at early, and taken before anything else is started."""

import socket

from needledrop.errors import ConfigRejected


def check_port(host: str, port: int) -> None:
    """Find out now, and not after the seconds that KServe and torch take to import.

    Raises:
        ConfigRejected: it can't be listened on.
    """
    with _bound(host, port):
        pass


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens, which keeps the port from others that start at the same time.

    Raises:
        ConfigRejected: the port can't be listened on.
    """
    taken = _bound(host, port)
    try:
        taken.listen(2048)
    except OSError as error:
        taken.close()
        raise not_free(host, port, error.strerror) from None
    return taken


def not_free(host: str, port: int, reason: str | None) -> ConfigRejected:
    """Say that a port can't be listened on."""
    return ConfigRejected(
        f"port {port} on {host} can't be listened on ({reason}); stop what uses it, or "
        "name another with --http-port and --grpc-port"
    )


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # By its protocol's name asyncio knows TCP, and sends what it has at once (TCP_NODELAY): else a
    # body that follows its headers waits for the caller's acknowledgement, some 40 ms.
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # One that was closed a moment ago is free.
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
    except (OSError, OverflowError) as error:
        taken.close()
        reason = error.strerror if isinstance(error, OSError) else "expected 0 to 65535"
        raise not_free(host, port, reason) from None
    return taken
