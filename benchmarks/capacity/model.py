"""The resources that a number of users needs, from unit costs, a profile of the users, and prices. Pure arithmetic."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
from msgspec import Meta

from benchmarks.capacity.units import Units
from openguild_proto.limits import MAX_LEASES

YEAR_SECS = 365 * 86_400
Share = Annotated[float, Meta(gt=0, le=1)]
Amount = Annotated[float, Meta(ge=0, le=1e9)]
Size = Annotated[float, Meta(ge=1, le=1e12)]
Count = Annotated[int, Meta(ge=1, le=10**9)]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The users' activity in the busiest hour. These are assumptions: change them with `--set name=value`."""

    online: Share = 0.1  # of all users, at the busiest moment
    posts_an_hour: Amount = 4.0  # per online user
    readers: Amount = 40.0  # followers of a post's log at that moment
    logs: Amount = 50.0  # that a connection follows
    opens_an_hour: Amount = 2.0  # connections that a user opens, each with a sync and the unread counts
    pages_an_hour: Amount = 20.0  # folded pages per online user
    logins_a_day: Amount = 0.05  # per user
    mean_share: Share = 0.4  # the mean hour's share of the busiest hour's posts


class Machines(msgspec.Struct, frozen=True, kw_only=True):
    """The capacity of machines, and list prices in dollars per month. These are assumptions, too."""

    busy: Share = 0.5  # planned use of a core: the rest is for bursts and a lost replica
    sockets: Count = 15_000  # per process
    database_cores: Count = 32  # per node
    partition_events: Size = 100e6
    kept_years: Amount = 2.0
    bus_messages: Size = 500_000.0  # per second and NATS server
    max_replicas: Annotated[int, Meta(ge=2)] = 200  # per cluster: messages for all replicas grow with it
    max_nodes: Count = 8  # per cluster
    max_online: Count = MAX_LEASES  # users of one cluster whose presence its replicas track
    core_price: Amount = 25.0
    gib_price: Amount = 3.5
    disk_gib_price: Amount = 0.12
    egress_gib_price: Amount = 0.02
    message_bytes: Amount = 450.0  # on the wire to a reader


class Needs(msgspec.Struct, frozen=True):
    """The needs of a number of users, over all clusters."""

    users: int
    clusters: int
    online: float
    posts: float  # per second
    deliveries: float  # per second
    server_cores: float  # of used CPU
    replicas: int
    memory_gib: float
    database_cores: float  # of used CPU, on primaries and standbys
    nodes: int  # primaries
    standbys: int
    partitions: int
    wal_mib: float  # per second
    disk_tib: float
    bus_messages: float  # per second
    bus_servers: int
    dollars: float  # per month


LIMIT_MESSAGES = 64.0  # per second to a replica from all others, at most (openguild_proto/policy/limit_sharing.py)
PRESENCE_MESSAGES = 0.1  # per second to a replica from each other one


def needs(users: int, units: Units, profile: Profile, machines: Machines) -> Needs:
    """Return the needs of these users: in one cluster if it suffices, else in several that federate."""
    clusters = 1
    while True:
        found = _cluster(users / clusters, units, profile, machines)
        over = max(
            found.replicas / machines.max_replicas,
            found.nodes / machines.max_nodes,
            found.online / machines.max_online,
        )
        if over <= 1:
            return _times(found, clusters, users)
        clusters = max(clusters + 1, math.floor(clusters * over))


def _cluster(users: float, units: Units, profile: Profile, machines: Machines) -> Needs:
    online = users * profile.online
    posts = online * profile.posts_an_hour / 3600
    opens, pages = online * profile.opens_an_hour / 3600, online * profile.pages_an_hour / 3600
    logins = users * profile.logins_a_day / 86_400
    deliveries = posts * profile.readers
    by_sockets = online / machines.sockets
    replicas = max(2.0, by_sockets)
    for _ in range(50):  # an event is read at each replica with a reader, and their number depends on the result
        heard_at = replicas * (1 - (1 - 1 / replicas) ** profile.readers)
        broadcasts = replicas * (min(LIMIT_MESSAGES, 4 * (replicas - 1)) + PRESENCE_MESSAGES * (replicas - 1))
        cores = 1e-6 * (
            posts * units.post.server
            + posts * heard_at * units.event.server
            + broadcasts * units.event.server
            + deliveries * units.delivery_us
            + pages * units.folded.server
            + opens * (units.connect.server + units.sync.server + units.unread.server)
            + logins * units.login_us
            + replicas * units.idle.server
        )
        more = max(2.0, by_sockets, cores / machines.busy)
        if more > 10 * machines.max_replicas or abs(more - replicas) < 0.5:
            replicas = more
            break
        replicas = more
    writes = 1e-6 * posts * units.post.database
    reads = 1e-6 * (
        pages * units.folded.database + opens * (units.connect.database + units.sync.database + units.unread.database)
    )
    room = machines.database_cores * machines.busy
    stored = posts * profile.mean_share * YEAR_SECS * machines.kept_years
    nodes = max(1, math.ceil(writes / room))
    standbys = max(1, math.ceil(reads / room))
    memory = (online * (units.connection_bytes + profile.logs * units.subscription_bytes)) / 2**30 + replicas * 0.15
    messages = posts * heard_at + broadcasts
    disk = stored * units.event_bytes
    egress = deliveries * profile.mean_share * machines.message_bytes * YEAR_SECS / 12
    servers = math.ceil(replicas)
    machines_cores = servers + (nodes + standbys) * min(
        machines.database_cores, max(2, math.ceil(max(writes / nodes, reads / standbys) / machines.busy))
    )
    dollars = (
        machines_cores * machines.core_price
        + (memory + 4 * machines_cores) * machines.gib_price
        + disk * 2 / 2**30 * machines.disk_gib_price  # the standby stores it, too
        + egress / 2**30 * machines.egress_gib_price
    )
    return Needs(
        users=round(users), clusters=1, online=online, posts=posts, deliveries=deliveries, server_cores=cores,
        replicas=servers, memory_gib=memory, database_cores=writes + reads, nodes=nodes, standbys=standbys,
        partitions=max(8, math.ceil(stored / machines.partition_events)), wal_mib=posts * units.wal_bytes / 2**20,
        disk_tib=disk / 2**40, bus_messages=messages, bus_servers=max(1, math.ceil(messages / machines.bus_messages)),
        dollars=dollars,
    )  # fmt: skip


def _times(found: Needs, clusters: int, users: int) -> Needs:
    whole = {
        name: value * clusters if isinstance(value, int | float) else value
        for name, value in msgspec.structs.asdict(found).items()
    }
    return Needs(**{**whole, "users": users, "clusters": clusters})
