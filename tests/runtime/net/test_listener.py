"""The end of a listener."""

from __future__ import annotations

import errno
import socket
import time

import pytest

from openguild_runtime.net.listener import ACCEPT_BATCH, open_listener, stop_accepting

pytestmark = pytest.mark.anyio


async def test_connections_that_wait_are_served_before_the_listener_closes() -> None:
    served: list[socket.socket] = []
    listener = open_listener("127.0.0.1", 0)
    place = listener.getsockname()
    clients = [socket.create_connection(place, timeout=5) for _ in range(3 * ACCEPT_BATCH + 1)]
    await stop_accepting(listener, lambda sock, address: served.append(sock), time.monotonic)
    assert len(served) == len(clients)
    for sock in served:
        sock.sendall(b"x")
    assert [client.recv(1) for client in clients] == [b"x"] * len(clients)
    with pytest.raises(OSError) as refused:
        socket.create_connection(place, timeout=5)
    assert refused.value.errno == errno.ECONNREFUSED
    for sock in (*served, *clients):
        sock.close()
