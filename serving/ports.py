"""Ports to listen on, looked at early."""

import socket

from needledrop.errors import ConfigRejected


def check_port(host: str, port: int) -> None:
    """Find out now, and not after the seconds that KServe and torch take to import.

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
