"""Ports: looked at early, taken before uvicorn listens."""

import asyncio
import socket

import pytest

from needledrop.errors import ConfigRejected
from serving.ports import check_port, listening
from tests.serving.world import free_port

HOST = "127.0.0.1"


def test_a_taken_port_is_refused_and_a_free_one_stays_free() -> None:
    port = free_port()
    with listening(HOST, port):
        for look in (check_port, listening):
            with pytest.raises(ConfigRejected, match=f"port {port} on {HOST} can't be listened on"):
                look(HOST, port)
    check_port(HOST, port)
    listening(HOST, port).close()


def test_what_is_answered_is_sent_at_once() -> None:
    """Without TCP_NODELAY a body that follows its headers waits for the caller, some 40 ms."""
    taken, seen = listening(HOST, free_port()), []

    def met(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        seen.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def ask() -> None:
        async with await asyncio.start_server(met, sock=taken):
            reader, writer = await asyncio.open_connection(*taken.getsockname()[:2])
            await reader.read()
            writer.close()

    asyncio.run(ask())
    assert seen == [1]
