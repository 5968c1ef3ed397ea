"""NATS with TLS and credentials: connections with and without them (docs/reliability.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import trustme

from openguild_runtime.bus.nats import NatsBus
from openguild_runtime.observability.metrics import Metrics
from tests.support.bus_handler import BusRecorder
from tests.support.nats_security import SecuredNats, mutual_nats, secured_nats
from tests.support.server import ServerProcess
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredNats]:
    with secured_nats(tmp_path_factory.mktemp("secured-nats")) as server:
        yield server


@pytest.mark.anyio
async def test_tls_and_credentials_work_also_after_a_reconnect(secured: SecuredNats) -> None:
    recorders = BusRecorder()
    heard = recorders.events
    async with anyio.create_task_group() as tasks:
        here, there = (
            NatsBus(
                secured.url,
                "one",
                Metrics("0", native_ring=False),
                tasks,
                credentials_file=str(secured.credentials_file),
                ca_file=str(secured.ca_file),
            )
            for _ in range(2)
        )
        await here.start(BusRecorder())
        await there.start(recorders)
        here.join("database")
        there.join("database")
        await eventually(lambda: here.connected and there.connected)
        there.subscribe(["c1"])
        await eventually(lambda: _published(here) and heard, what="an event on the other side")
        assert heard[0] == ("c1", b"event")
        await anyio.to_thread.run_sync(secured.kill)
        await eventually(lambda: not here.connected and not there.connected, what="a cut that is noticed")
        await anyio.to_thread.run_sync(secured.start)
        await eventually(lambda: here.connected and there.connected, what="connections again")
        heard.clear()
        await eventually(lambda: _published(here) and heard, what="an event after the cut")
        await here.aclose()
        await there.aclose()


def _published(bus: NatsBus) -> bool:
    bus.publish_channel("c1", b"event")
    return True


@pytest.mark.parametrize("missing", ["credentials", "authority", "tls"])
@pytest.mark.anyio
async def test_missing_ca_or_credentials_are_retried(secured: SecuredNats, missing: str) -> None:
    url = secured.url.replace("tls://", "nats://") if missing == "tls" else secured.url
    async with anyio.create_task_group() as tasks:
        bus = NatsBus(
            url,
            "one",
            Metrics("0", native_ring=False),
            tasks,
            credentials_file=None if missing == "credentials" else str(secured.credentials_file),
            ca_file=None if missing in ("authority", "tls") else str(secured.ca_file),
        )
        await bus.start(BusRecorder())
        bus.join("database")
        await eventually(lambda: bus.reconnects.failed_attempts >= 2, what="a second refusal")
        assert not bus.connected
        await bus.aclose()


def test_a_server_uses_tls_and_credentials(secured: SecuredNats, database_url: str, tmp_path: Path) -> None:
    process = ServerProcess(
        tmp_path,
        DATABASE_URL=database_url,
        NATS__URL=secured.url,
        NATS__CREDENTIALS_FILE=str(secured.credentials_file),
        NATS__CA_FILE=str(secured.ca_file),
    )
    with process.start():
        assert process.status("/ready") == 200
        assert process.stop() == 0, process.tail()
    assert "USER NKEY SEED" not in process.tail()


@pytest.mark.anyio
async def test_nats_may_want_a_certificate_which_is_read_anew(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    files = (str(tmp_path / "client.pem"), str(tmp_path / "client.key"))

    def issue(by: trustme.CA) -> None:
        certificate = by.issue_cert("replica.test")
        certificate.cert_chain_pems[0].write_to_path(files[0])
        certificate.private_key_pem.write_to_path(files[1])

    issue(stranger)
    with mutual_nats(tmp_path, authority) as url:
        async with anyio.create_task_group() as tasks:
            metrics = Metrics("0", native_ring=False)
            bus = NatsBus(url, "one", metrics, tasks, ca_file=str(tmp_path / "ca.pem"), certificate=files)
            await bus.start(BusRecorder())
            bus.join("database")
            await eventually(lambda: bus.reconnects.failed_attempts >= 2, what="a second refusal")
            issue(authority)
            await eventually(lambda: bus.connected, what="a connection with the renewed certificate")
            await bus.aclose()
