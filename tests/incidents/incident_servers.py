"""NATS that refuses, users who do not see each other, and servers of other operators."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from openguild_proto.canonical.keys import encode_unpadded
from openguild_runtime.embedded import EmbeddedNats
from tests.incidents.conftest import Incident, pod, repeated, run_statements
from tests.support.chat import User
from tests.support.nats_config import configured_nats, permissions
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

NAMES = ("here.test", "there.test")
AHEAD_SECS = 200


def online(user: User, guild: str) -> set[str]:
    """Return the users that a member sees as online."""
    found = user.get(f"/guilds/{guild}/presence").json()
    assert found["shown"]
    return {member["user_id"] for member in found["members"]}


def test_nats_permits_too_little(database_url: str, tmp_path: Path, walk: Callable[..., Incident]) -> None:
    """Users at different replicas do not see each other, and limits are divided."""
    denied = '"openguild.localhost.*.limits", "openguild.localhost.*.hints"'
    with configured_nats(tmp_path, permissions(publish=denied)) as nats, ExitStack() as running:
        servers = [
            pod(tmp_path, DATABASE_URL=database_url, SERVER_NAME="localhost", NATS__URL=nats.url_of("og:pw"),
                NATS__MIN_REPLICAS=2, PRESENCE__MAX_GUILD_MEMBERS=2)
            for _ in range(2)
        ]  # fmt: skip
        for server in servers:
            running.enter_context(server.start())
        refuses, nobody = walk("nats-refuses", *servers), walk("nobody-seems-to-be-online", *servers)
        alice, bob = (server.chat().user() for server in servers)
        guild = alice.guild()
        channel = alice.channel(guild)
        bob.join(alice.invite(guild))
        with alice.notifications(), bob.notifications():
            for user in (alice, bob):
                wait_until(lambda user=user: online(user, guild) == {user.user_id})
            assert nobody.ask().count("nats: error") == 2
            for server in servers:
                refuses.fires("OpenGuildNatsDenied", instance=f"127.0.0.1:{server.port}")
            refuses.fires("OpenGuildLimitsDivided")
            said = refuses.ask()
            assert said.count("NATS does not permit publish on openguild.localhost.*.limits") == 2
            assert said.count("openguild_nats_denied_subjects 2.0") == said.count("openguild_limit_divisor 2.0") == 2
            nats.reload(permissions())
            refuses.ends("OpenGuildNatsDenied", "OpenGuildLimitsDivided")
            assert refuses.ask().count("\nready\n") == 2
            wait_until(lambda: online(alice, guild) == online(bob, guild) == {alice.user_id, bob.user_id})
        nats.reload(f"{permissions()}\nmax_payload: 2048")
        with repeated(lambda: alice.say(channel, "y" * 3_000)):
            refuses.fires("OpenGuildNatsFaults", kind="payload")
            assert re.search(r'openguild_nats_faults_total{kind="payload"} [1-9]', refuses.ask())
            nats.reload(permissions())
            nats.kill()  # it reports its limit only to clients that connect
            nats.start()
            refuses.ends("OpenGuildNatsFaults")
        carol = servers[0].chat().user()
        carol.join(alice.invite(guild))
        assert alice.get(f"/guilds/{guild}/presence").json()["shown"] is False
        assert nobody.ask().count("presence.max_guild_members = 2") == 2


def test_another_database_has_the_same_server_name(
    new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path: Path, walk: Callable[..., Incident]
) -> None:
    """Staging runs with the configuration of prod."""
    prod, staging = (
        pod(tmp_path, DATABASE_URL=new_database(), NATS__URL=nats_server.url, SERVER_NAME="shared.test")
        for _ in range(2)
    )
    with prod.start(), staging.start():
        incident = walk("another-database", prod)
        incident.fires("OpenGuildNatsShared", instance=f"127.0.0.1:{prod.port}")
        said = incident.ask()
        assert "openguild_nats_other_databases 1.0" in said
        (ours,) = set(re.findall(r'"ours": "([0-9a-f-]+)"', said))
        assert re.search(rf"^ *{ours.rpartition('-')[0]}", said, re.MULTILINE), "the id that the database tells"
        assert staging.stop() == 0
        staging.settings["SERVER_NAME"] = "staging.test"
        staging.start()
        incident.ends("OpenGuildNatsShared")
        assert "openguild_nats_other_databases" not in incident.ask()


def set_clock(database_url: str, ahead_secs: int) -> None:
    """Set the clock of a database."""
    run_statements(
        database_url,
        "CREATE OR REPLACE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql "
        f"AS $$ SELECT pg_catalog.clock_timestamp() + interval '{ahead_secs} s' $$",
        f"ALTER DATABASE {urlsplit(database_url).path[1:]} SET search_path = public, pg_catalog",
    )


@pytest.fixture
def two(new_database: Callable[[], str], tmp_path: Path) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Run the servers of two operators; the second one's database has a wrong clock."""
    here, there = (
        pod(tmp_path, DATABASE_URL=new_database(), SERVER_NAME=name, FEDERATION__MODE="open",
            FEDERATION__SIGNING_KEY=encode_unpadded(name.encode().ljust(32, b"k")), FEDERATION__ALLOW_PRIVATE_ADDRESSES="true")
        for name in NAMES
    )  # fmt: skip
    here.settings["FEDERATION__ADDRESSES__0"] = f"{NAMES[1]}={there.base_url}"
    there.settings["FEDERATION__ADDRESSES__0"] = f"{NAMES[0]}={here.base_url}"
    set_clock(str(there.settings["DATABASE_URL"]), AHEAD_SECS)
    with here.start(), there.start():
        yield here, there


def test_another_server_has_a_wrong_clock_and_is_gone(
    two: tuple[ServerProcess, ServerProcess], walk: Callable[..., Incident]
) -> None:
    here, there = two
    incident = walk("other-servers", here)
    alice, bob = here.chat().user(), there.chat().user()
    guild = alice.guild()
    channel = alice.channel(guild)
    bob.join(f"{alice.invite(guild)}@{NAMES[0]}")

    def talk() -> None:
        bob.say(channel, "hello")
        here.status("/federation/v1/ping")  # without a signature

    with repeated(talk):
        incident.fires("OpenGuildServerClock", server=NAMES[1])
        incident.fires("OpenGuildServerSignatures", reason="signature_missing")
        said = incident.ask()
        ahead = re.search(r'openguild_federation_clock_ahead_seconds{server="there.test"} (\S+)', said)
        assert ahead is not None
        assert abs(float(ahead[1]) - AHEAD_SECS) < 5
        assert '"rejection": "signature_missing",\n    "client": "127.0.0.1"' in said
        set_clock(str(there.settings["DATABASE_URL"]), 0)
        incident.ends("OpenGuildServerClock")
    there.stop()
    with repeated(lambda: alice.say(channel, "hello")):
        incident.fires("OpenGuildServerUnanswered", server=NAMES[1])
        assert re.search(r'openguild_federation_failures_total{reason="connect"} [1-9]', incident.ask())
        assert '"error": "there.test: connect: ' in incident.try_row("og admin federation retry", server=NAMES[1])
        assert '"standing": "deny"' in incident.mend(server=NAMES[1])
        assert '"reason": "spam since Monday"' in incident.ask()
        assert '"standing": "allow"' in incident.try_row("og admin federation clear", server=NAMES[1])
        there.start()
        assert '"status": 200' in incident.try_row("og admin federation retry", server=NAMES[1])
    incident.ends("OpenGuildServerUnanswered", "OpenGuildServerSignatures")
