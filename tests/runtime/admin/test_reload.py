"""What a changed configuration does to a server that serves: what is marked live applies, and nothing else."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
import structlog

from openguild_proto.canonical.keys import KeyRing, encode_unpadded
from openguild_proto.fanout.hub import Hub
from openguild_proto.gateway.feeds import Feeds
from openguild_proto.operations.context import rates
from openguild_proto.replica.replica import Replica
from openguild_runtime.admin.reload import KEYS, SETTABLE, LiveConfig, settings_digest, value_of, with_value
from openguild_runtime.bus.local import LocalBus
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.embedded.private import complete_config
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.replica.runner import ReplicaRunner
from openguild_runtime.server.parts import make_service
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from tests.support.numbers import NUMBERS
from tests.support.server import SIGNING_KEY

pytestmark = pytest.mark.anyio
GIVEN: dict[str, Any] = {"session": {"signing_key": SIGNING_KEY}}
OTHERS = {number.key: number.least for number in NUMBERS} | {"registration.enabled": False}
OTHERS["session.refresh_ttl_secs"] = 50_000  # no shorter than the other life
SEED = encode_unpadded(bytes(range(32, 64)))


class Live:
    """A configuration in force, and what its changes reach."""

    def __init__(self, tasks: anyio.abc.TaskGroup, start: Callable[[ServerConfig], ServerConfig], **given: Any) -> None:
        self.stands = start(ServerConfig.model_validate(GIVEN | given))
        self.service = make_service(self.stands)
        self.replica = Replica(Hub(), Feeds(Hub()), self.service.tokens, random.random, replica_id="here")
        runner = ReplicaRunner(
            self.replica, storage=MemoryStorage(), bus=LocalBus(), metrics=Metrics("0", native_ring=True), tasks=tasks,
            sources=ClocksAndEntropy(),
        )  # fmt: skip
        self.outcomes: list[bool] = []
        self.live = LiveConfig(self.stands, self.service, runner, lambda: self.stands, self.outcomes.append)

    def in_force(self) -> ServerConfig:
        """What the parts have been told agrees with what is shown."""
        config = self.live.config
        assert self.service.settings == config.settings(self.service.settings.version)
        for name, (limit, secs) in rates(self.service.settings).items():
            window = getattr(self.service, name)
            assert (window.limit, window.window_secs) == (limit, secs)
        return config


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with anyio.create_task_group() as tasks:
        yield Live(tasks, lambda read: read)
        tasks.cancel_scope.cancel()


def test_these_keys_apply_while_it_serves() -> None:
    """In the open, so that nobody marks a key by mistake; the code itself has no list."""
    marked = {name for name, setting in KEYS.items() if setting.live}
    sections = {name.partition(".")[0] for name in marked}
    assert sections == {"messaging", "session", "guilds", "registration", "search", "federation"}
    still = {name for name in KEYS if name.partition(".")[0] in sections} - marked
    assert still == {"messaging.queue_capacity"} | {
        f"federation.{name}"
        for name in (
            "signing_key", "key_id", "previous_signing_key", "previous_key_id", "base_url", "allow_private_addresses", "addresses",
            "ca_file",
        )
    }  # fmt: skip
    lists = ("trusted_servers", "allowed_servers", "denied_servers", "quarantined_servers", "take_guilds_from")
    assert marked - SETTABLE == {"session.signing_key", "session.fallback_verifying_keys", "federation.mode"} | {
        f"federation.{name}" for name in lists
    }


@pytest.mark.parametrize("key", sorted(SETTABLE))
async def test_what_is_marked_live_is_applied(live: Live, key: str) -> None:
    assert value_of(live.in_force(), key) != OTHERS[key]
    live.live.apply(with_value(live.live.config, key, OTHERS[key]))
    assert value_of(live.in_force(), key) == OTHERS[key]
    assert live.live.changes() == {key: OTHERS[key]}
    live.live.reload()
    assert live.in_force() == live.stands, "what was set lasts until the next reading"
    assert live.outcomes == [False, True]


@pytest.mark.parametrize("key", sorted(key for key in OTHERS if key not in SETTABLE and "." in key))
async def test_what_is_not_marked_waits_for_the_next_start(live: Live, key: str) -> None:
    before = live.in_force()
    live.stands = with_value(with_value(before, key, OTHERS[key]), "messaging.replay_window", 7)
    with structlog.testing.capture_logs() as logged:
        live.live.reload()
    assert value_of(live.in_force(), key) == value_of(before, key)
    assert live.in_force().messaging.replay_window == 7, "the others are applied"
    waiting = [record["keys"] for record in logged if "apply at the next start" in record["event"]]
    differs = value_of(before, key) != OTHERS[key]
    assert waiting == ([[key]] if differs else [])


async def test_the_digest_tells_whether_settings_are_the_same(live: Live) -> None:
    before = live.live.config
    live.live.apply(with_value(before, "federation.denied_servers", ["hostile.example"]))
    after = live.live.config
    assert settings_digest(after) != settings_digest(before)
    elsewhere = ServerConfig.model_validate({"session": {"signing_key": SEED}, "port": 1})
    assert settings_digest(elsewhere) == settings_digest(before), "neither secrets nor what may differ are in it"


async def test_keys_are_replaced_only_when_they_change(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced: list[KeyRing] = []
    monkeypatch.setattr(live.service.tokens, "replace_keys", replaced.append)
    live.live.apply(with_value(live.live.config, "messaging.replay_window", 7))
    assert replaced == []
    live.stands = ServerConfig.model_validate({"session": {"signing_key": SEED}})
    live.live.reload()
    assert [ring.signing.public for ring in replaced] == [live.stands.key_ring().signing.public]


BROUGHT = {"database_url": "postgresql://u:hunter2@own/db", "nats": {"url": "nats://u:hunter2@own"}}


async def test_what_an_embedded_server_brought_itself_is_no_change() -> None:
    async with anyio.create_task_group() as tasks:
        live = Live(tasks, lambda read: complete_config(read, "postgresql://own/db", "nats://own"), embedded=True)
        live.stands = ServerConfig.model_validate({"embedded": True})
        with structlog.testing.capture_logs() as logged:
            live.live.reload()
        assert live.in_force().session.signing_key is not None, "it made its own, once"
        assert [record["event"] for record in logged] == ["configuration applied"]
        assert logged[0]["applied"] == []
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"database_url": "postgresql://u:hunter3@own/db"}, ["database_url"]),
        ({"nats": {"url": "nats://u:hunter3@own"}}, ["nats.url"]),
        ({"workers": 2, "admin_socket": "/run/a"}, ["admin_socket", "workers"]),
        ({"database_url": None, "nats": {}, "embedded": True}, ["database_url", "embedded", "nats.url"]),
    ],
)
async def test_addresses_that_changed_are_named_without_their_values(changes: dict[str, Any], keys: list[str]) -> None:
    async with anyio.create_task_group() as tasks:
        live = Live(tasks, lambda read: read, **BROUGHT)
        before = live.in_force()
        live.stands = ServerConfig.model_validate(GIVEN | BROUGHT | changes)
        with structlog.testing.capture_logs() as logged:
            live.live.reload()
        assert live.in_force() == before
        assert [sorted(record["keys"]) for record in logged if "next start" in record["event"]] == [keys]
        assert "hunter" not in str(logged)
        tasks.cancel_scope.cancel()
