"""What a route says of itself is what its operation is given, and what is enforced."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest

from openguild_proto.errors import ErrorCode, LocalProtocolError
from openguild_proto.http.message import OpenGateway, OpenStream, Response
from openguild_proto.operations import account_deletion, changes, messages, routes, typing, users
from openguild_proto.operations import reads as reading
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Limit, rates
from openguild_proto.operations.openapi import build_openapi, documented_path
from openguild_proto.operations.route import Route, collect_routes
from openguild_proto.operations.routes import ROUTES
from openguild_proto.policy.quotas import StreamLimiter
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.records import ChannelAccess, GuildAccess
from tests.support.world import PASSWORD, World, decoded, request

ACCESS = {"guild": GuildAccess, "channel": ChannelAccess, None: None}
BODIES: dict[Limit, Any] = {
    Limit.MESSAGES: {"content": "x"}, Limit.WRITES: {}, Limit.STREAMS: None, Limit.SEARCHES: None, Limit.TYPING: {"preview": "x"},
    Limit.READS: {}, Limit.QUERIES: None,
    Limit.ATTEMPTS: {
        "username": "somebody", "password": PASSWORD, "identifier": "somebody", "secret": PASSWORD, "device": {"device_id": "d"},
    },
    Limit.REFRESHES: {"refresh_token": "5H-TegJkYpU8vHsuvZTVqQ"},
}  # fmt: skip


def name_of(route: Route) -> str:
    return f"{route.method} {route.template}"


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_an_operation_takes_what_its_route_gives(route: Route) -> None:
    said = eval(route.operation.__annotations__["call"], {**route.operation.__globals__, "Call": Call})
    body, access = said.__args__
    assert (body if body is not type(None) else None) is route.body
    assert (access if access is not type(None) else None) is ACCESS[route.rights.scope]


ELSEWHERE = {
    Limit.SERVERS,
    Limit.OWNER_READS,
}  # of what only other servers ask or have: test_servers, test_older_pages
LIMITED = [(route, limit) for route in ROUTES for limit in route.limits if limit not in ELSEWHERE]


@pytest.mark.parametrize(
    ("route", "limit"), LIMITED, ids=[f"{name_of(route)} {limit.name}" for route, limit in LIMITED]
)
def test_a_limit_that_a_route_names_is_counted(route: Route, limit: Limit) -> None:
    world = World()
    alice = world.user("alice")
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, alice))["guild_id"]
    channel = decoded(world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, alice))["channel_id"]
    for name in rates(world.service.settings):
        setattr(world.service, name, SlidingWindow(5, 60))  # of which alice's login and registration take two
    world.service.sockets = StreamLimiter(5, 5, 5)
    path = re.sub(r"\{(?!channel_id|event_id)\w+\}", str(uuid.uuid4()), route.template).replace("{channel_id}", channel)
    path = path.replace("{event_id}", "$1")
    body = {"emoji": "x"} if "reactions" in path else BODIES[limit]
    asked = request(route.method, path, body, alice, upgrade=route.auth in {"socket", "gateway"})
    answers = [world.run(asked) for _ in range(6)]
    assert isinstance(answers[0], OpenStream | OpenGateway) or answers[0].status != 429
    refused = answers[-1]
    assert isinstance(refused, Response)
    assert refused.status == 429
    assert decoded(refused)["error"] in {code.spec.code for code in limit.codes}
    assert "retry-after" in dict(refused.headers)


def test_every_route_that_counts_says_429() -> None:
    document = build_openapi(ROUTES, "1")
    for route in ROUTES:
        described = document["paths"][documented_path(route)][route.method.lower()]["responses"]
        assert ("429" in described) == bool(route.limits), name_of(route)
        assert route.limits or route.auth == "none", f"{name_of(route)} can be called without bound"


def changes_something(route: Route) -> bool:
    return route.auth == "bearer" and route.method != "GET" and route.template != "/sync"


def test_the_limit_of_writes_is_not_forgotten() -> None:
    for route in ROUTES:
        if changes_something(route):
            appends = route.operation is messages.post_message or route in collect_routes(changes)
            hints = route in collect_routes(typing)
            reads = route in collect_routes(reading)
            wanted = Limit.MESSAGES if appends else Limit.TYPING if hints else Limit.READS if reads else Limit.WRITES
            guesses = route.operation in {users.change_password, account_deletion.delete_account}
            assert route.limits == (Limit.ATTEMPTS if guesses else wanted,), name_of(route)


def test_an_operation_that_forgets_its_late_decision_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(call: Any, channel_id: str) -> Any:
        yield from ()
        return Response.empty()

    world = World()
    alice = world.user("alice")
    path = f"/channels/{uuid.uuid4()}/messages"
    found: Any = routes.match("POST", path)
    broken = found._replace(route=found.route._replace(operation=careless))
    monkeypatch.setattr(routes, "match", lambda method, path: broken)
    with pytest.raises(LocalProtocolError, match="SEND_MESSAGES"):
        world.ask("POST", path, {"content": "x"}, alice)


def test_routes_are_those_of_their_modules() -> None:
    assert [route.operation.__name__ for route in collect_routes(messages)] == ["post_message"]
    assert {route.name.partition(".")[0] for route in ROUTES} == {
        "health", "description", "users", "account_deletion", "sessions", "guilds", "channels", "members", "invites", "keys",
        "logs", "messages", "changes", "timeline", "typing", "presence", "gateway", "reads", "inbox", "search", "streams",
        "capabilities", "federation", "transactions", "peer_guilds", "peer_logs", "proofs", "proposals", "deliveries", "succession",
        "owner_changes", "giving_up", "handing_over", "taking_over", "bans", "timeouts",
    }  # fmt: skip
    names = [name_of(route) for route in ROUTES]
    assert len(set(names)) == len(names)


def test_a_socket_s_token_in_the_query_may_come_with_every_parameter() -> None:
    world = World()
    alice = world.user("alice")
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, alice))["guild_id"]
    channel = decoded(world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, alice))["channel_id"]
    opened = world.run(request("GET", f"/channels/{channel}/ws?since=0&epoch=1&access_token={alice}", upgrade=True))
    assert isinstance(opened, OpenStream)
    assert (opened.since, opened.epoch) == (0, 1)


def test_codes_are_named_once_and_in_order() -> None:
    for route in ROUTES:
        codes = route.error_codes
        assert len(set(codes)) == len(codes)
        assert [code.spec.status for code in codes] == sorted(code.spec.status for code in codes)
    [login] = [route for route in ROUTES if route.template == "/sessions/login"]
    assert {ErrorCode.INVALID_CREDENTIALS, ErrorCode.LOGIN_RATE_LIMIT} < set(login.error_codes)
