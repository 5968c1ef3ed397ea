"""More connections than the limits allow: other clients are still served (PROTOCOL 9.5.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.raw import HOST, RawClient
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

HEALTH = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"


def test_idle_connections_make_room(database_url: str, tmp_path: Path) -> None:
    """There are more connections than descriptors, all silent; another client is still served."""
    with ServerProcess(tmp_path, DATABASE_URL=database_url, descriptors=120).start() as server:
        silent = [RawClient(server.port) for _ in range(100)]
        for _ in range(3):
            assert server.status("/live") == 200
        for client in silent:
            client.sock.close()


@pytest.mark.parametrize("proxies", ["192.0.2.1", "127.0.0.1"])
def test_one_address_has_its_share_of_connections(proxies: str, database_url: str, tmp_path: Path) -> None:
    """An address may have 1 connection for a stream and 256 others; a trusted proxy speaks for many addresses."""
    settings = {"WEBSOCKET__MAX_CONNECTIONS_PER_ADDRESS": 1, "TRUSTED_PROXIES": proxies}
    with ServerProcess(tmp_path, DATABASE_URL=database_url, **settings).start() as server:
        clients = [RawClient(server.port) for _ in range(257)]
        for client in clients:
            client.send(HEALTH)
            assert client.answer().status == 200
        with RawClient(server.port) as one_more:
            if proxies == "127.0.0.1":
                one_more.send(HEALTH)
                assert one_more.answer().status == 200
            else:
                assert one_more.read_to_end() == b""
                with RawClient(server.port) as another:
                    assert another.read_to_end() == b""

                def refusals() -> list[dict[str, Any]]:
                    return [record for record in server.records() if "refused" in record["message"]]

                (line,) = wait_until(refusals)
                assert (line["level"].lower(), line["peer"], line["connections"]) == ("warning", "127.0.0.1", 257)
        for client in clients:
            client.sock.close()
