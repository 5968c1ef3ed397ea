"""The port of several workers: theirs alone, from before the first one listens."""

from __future__ import annotations

import errno
import socket

import pytest

from openguild_runtime.net.listener import open_listener
from openguild_runtime.workers.supervisor import reserve
from tests.support.waiting import free_port


def test_no_second_server_gets_a_port_before_its_workers_listen() -> None:
    port = free_port()
    with reserve("127.0.0.1", port):
        with pytest.raises(OSError) as second:
            reserve("127.0.0.1", port).close()
        with pytest.raises(OSError) as single:
            open_listener("127.0.0.1", port).close()
    assert (second.value.errno, single.value.errno) == (errno.EADDRINUSE, errno.EADDRINUSE)
    reserve("127.0.0.1", port).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_workers_listen_on_their_reserved_port_and_get_all_connections(host: str) -> None:
    port = free_port()
    with reserve(host, port), open_listener(host, port, shared=True) as one:
        with open_listener(host, port, shared=True) as two:
            for listener in (one, two):
                listener.setblocking(True)
        with socket.create_connection((host, port), timeout=5):
            accepted, _ = one.accept()
            accepted.close()  # first, so that this end waits in TIME_WAIT
    reserve(host, port).close()
