"""What an operator sees of the readers of a replica."""

from __future__ import annotations

from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.gateway.close_codes import GatewayClose
from openguild_proto.memory import MemoryTables
from openguild_proto.replica.backlogs import Depths, GatewayTotals, closed_gateway_reader
from openguild_proto.replica.survey import Survey
from tests.support.deeds import NOW
from tests.support.driven_gateway import GatewayClient
from tests.support.driven_replica import Driven
from tests.support.elsewhere import Elsewhere


def test_a_gateway_socket_that_reads_slowly_is_seen_until_it_is_closed() -> None:
    elsewhere = Elsewhere(MemoryTables())
    alice, bob = elsewhere.user(), elsewhere.user()
    guild = elsewhere.guild(alice)
    channel = elsewhere.channel(alice, guild)
    elsewhere.perform(GrantGuildRole(guild_id=guild, user_id=bob, role="member", now_ms=NOW))
    driven = Driven(elsewhere.tables, capacity=4)
    replica = driven.replica
    fast, slow = (GatewayClient(driven, user, user) for user in (alice, bob))
    for client in (fast, slow):
        client.follow(f"channel:{channel}", f"guild:{guild}")
    assert replica.gateway_totals() == GatewayTotals(2, 4, 0)
    assert replica.depths() == Depths([], 0)
    slow.stuck = True
    for _ in range(3):
        driven.commit(channel)
        fast.attend()
    assert replica.depths() == Depths([(channel, 3)], 0)
    assert replica.gateway_totals().from_log == 0
    for _ in range(3):
        driven.commit(channel)
        fast.attend()
    assert replica.gateway_totals() == GatewayTotals(2, 4, 1)
    assert replica.depths() == Depths([], 0), "the ring keeps nothing for it"
    survey = Survey(replica.hub, [channel, "none"])
    for socket in replica.gateway.sockets():
        survey.gateway(socket)
    assert [(line.user_id, line.logs, line.behind) for line in survey.slowest_first()] == [(bob, 2, 6), (alice, 2, 0)]
    line = survey.channel(channel, 6, 7)
    assert (line.subscribers, line.depth, line.behind, line.slowest_user, line.head) == (2, 6, 6, bob, 7)
    assert survey.channel("none", 0, None).subscribers == 0
    only = Survey(replica.hub, [], alice)
    for socket in replica.gateway.sockets():
        only.gateway(socket)
    assert [line.user_id for line in only.readers] == [alice]
    closed = {
        reader.user_id: (reader.missed, reader.cause)
        for socket in replica.gateway.sockets()
        if (reader := closed_gateway_reader(socket, "write_timeout", 0.0)) is not None
    }
    assert closed == {bob: (6, "write_timeout")}
    assert not any(closed_gateway_reader(socket, None, 0.0) for socket in replica.gateway.sockets())
    assert replica.gateway.close_user(bob) == 1
    fast.attend()
    assert slow.closed == GatewayClose.CLOSED_BY_OPERATOR
    assert replica.gateway_totals() == GatewayTotals(1, 2, 0)
    fast.leave()
    assert replica.gateway_totals() == GatewayTotals(0, 0, 0)
