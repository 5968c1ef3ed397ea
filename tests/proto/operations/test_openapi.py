"""The OpenAPI document is fit for generators, and says what the server does (PROTOCOL 3.1, 3.4)."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import OpenStream, Response
from openguild_proto.limits import MAX_PROBLEMS
from openguild_proto.operations import logs, messages
from openguild_proto.operations.openapi import build_openapi, documented_path, operation_id
from openguild_proto.operations.parameters import REASON
from openguild_proto.operations.route import Route
from openguild_proto.operations.routes import ROUTES, match
from openguild_proto.policy.names import text_problem
from openguild_proto.schemas.fields import text_pattern
from openguild_proto.sessions.passwords import password_problems
from tests.support.world import World, decoded, request

DOCUMENT: dict[str, Any] = json.loads(json.dumps(build_openapi(ROUTES, "1")))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
UUID = "ec7c5138-ee1a-4112-95ef-e53514b670c2"


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from walk(child)
    elif isinstance(node, list):
        for child in node:
            yield from walk(child)


def test_every_path_stands_once_and_leads_to_its_route() -> None:
    assert DOCUMENT["servers"] == [{"url": "/", "description": "the root of the server that returned this document"}]
    assert len(list(operations())) == len(ROUTES)
    for route in ROUTES:
        path = documented_path(route)
        assert path.startswith("/client/v1") == (route.client or route.template == "/client/v1")
        found = match(route.method, re.sub(r"\{\w+_id\}", UUID, path).replace("{code}", "c").replace("{identity}", "i"))
        assert found is not None


def test_names_of_operations_are_words() -> None:
    names = [operation["operationId"] for _, operation in operations()]
    assert max(Counter(names).values()) == 1
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
    assert operation_id(match_route("POST", "/guilds")) == "create_guild"


def match_route(method: str, template: str) -> Route:
    return next(route for route in ROUTES if (route.method, route.template) == (method, template))


def test_every_tag_is_described() -> None:
    described = {tag["name"]: tag["description"] for tag in DOCUMENT["tags"]}
    assert {tag for _, operation in operations() for tag in operation["tags"]} == described.keys()
    assert all(described.values())


def test_no_member_has_a_default() -> None:
    """Generators take a member with a default for one that is always there."""
    assert [node for node in walk(SCHEMAS) if "default" in node] == []


def test_members_that_a_server_leaves_out_are_never_null() -> None:
    assert SCHEMAS["Message"]["properties"]["reply_to"].get("type") == "string"
    assert {"type": "null"} in SCHEMAS["Invite"]["properties"]["expires_at"]["anyOf"], "it is written as null"
    assert {"type": "null"} in SCHEMAS["PostMessage"]["properties"]["nonce"]["anyOf"], "a client may write null"


@pytest.mark.parametrize("name", SCHEMAS)
def test_examples_of_members_fit(name: str) -> None:
    for member in SCHEMAS[name].get("properties", {}).values():
        for example in member.get("examples", ()):
            validate(member, example)


def validate(schema: dict[str, Any], value: Any) -> None:
    whole = {**schema, "components": DOCUMENT["components"]}
    Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)


@pytest.mark.parametrize(("name", "operation"), list(operations()), ids=[name for name, _ in operations()])
def test_examples_of_bodies_fit(name: str, operation: dict[str, Any]) -> None:
    bodies = [node for node in walk(operation) if {"schema", "example"} <= node.keys()]
    assert len(bodies) >= ("requestBody" in operation), name
    for body in bodies:
        validate(body["schema"], body["example"])


def test_errors_are_named_for_each_operation() -> None:
    for route in ROUTES:
        operation = DOCUMENT["paths"][documented_path(route)][route.method.lower()]
        assert operation.get("x-error-codes", []) == [code.spec.code for code in route.error_codes]
        for code in route.error_codes:
            assert f"`{code.spec.code}`" in operation["responses"][str(code.spec.status)]["description"]
    assert "Error" not in SCHEMAS
    assert ErrorCode.NOT_FOUND.spec.code in SCHEMAS["ApiError"]["properties"]["error"]["enum"]


def test_upgrades_name_their_schemes_and_426() -> None:
    streams = DOCUMENT["paths"]["/client/v1/channels/{channel_id}/ws"]["get"]
    assert streams["security"] == [{"bearer": []}, {"subprotocol": []}, {"query": []}]
    assert DOCUMENT["components"]["securitySchemes"]["subprotocol"]["name"] == "Sec-WebSocket-Protocol"
    gateway = DOCUMENT["paths"]["/client/v1/gateway"]["get"]
    assert gateway["security"][0] == {}
    for operation in (streams, gateway):
        assert operation["responses"]["426"]["$ref"].endswith("/Error426")
        assert "Sec-WebSocket-Protocol" in operation["responses"]["101"]["headers"]
    assert {"Upgrade", "Sec-WebSocket-Version"} <= DOCUMENT["components"]["responses"]["Error426"]["headers"].keys()


# --- bounds are those of the server --------------------------------------------------------------------


@given(st.text(max_size=12), st.sampled_from([(1, 4), (0, 4), (3, 6)]))
def test_a_pattern_says_what_trimming_leaves(text: str, bounds: tuple[int, int]) -> None:
    least, most = bounds
    trimmed = text.strip()
    fits = least <= len(trimmed) <= most and text_problem(trimmed) is None
    assert (re.search(text_pattern(least, most), text) is not None) == fits


@given(st.text(" \x1f\u0085ab\0\n", max_size=12))
def test_passwords_and_reasons_are_as_described(text: str) -> None:
    fits = re.search(SCHEMAS["Credentials"]["properties"]["password"]["pattern"], text) is not None
    assert fits == (password_problems(text.strip()) == [])
    assert REASON.parse is not None
    try:
        REASON.parse("reason", text)
        taken = True
    except Refusal:
        taken = False
    assert (re.search(REASON.schema["pattern"], text) is not None) == taken


class Scene:
    def __init__(self) -> None:
        self.world = World()
        self.alice = self.world.user("alice")
        self.guild = decoded(self.world.ask("POST", "/guilds", {"name": "g"}, self.alice))["guild_id"]
        channels = f"/guilds/{self.guild}/channels"
        self.channel = decoded(self.world.ask("POST", channels, {"name": "c"}, self.alice))["channel_id"]
        self.world.ask("POST", f"/channels/{self.channel}/messages", {"content": "x"}, self.alice)

    def ask(self, path: str, *, upgrade: bool = False) -> Response | OpenStream:
        answer = self.world.run(request("GET", path, token=self.alice, upgrade=upgrade))
        assert isinstance(answer, Response | OpenStream)
        return answer


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("since=0", None), ("since=1", None), ("since=1&epoch=1", None),
        ("since=2", "invalid_since"), (f"since={2**63}", "invalid_since"), (f"since={10**40}", "invalid_since"),
        ("since=1&epoch=2", "invalid_since"), ("since=5&epoch=2", "invalid_since"),
        ("since=-1", "validation_error"), (f"since=-{10**40}", "validation_error"), ("since=", "validation_error"),
        ("since=1.0", "validation_error"), ("epoch=1", "validation_error"), ("since=0&epoch=0", "validation_error"),
        ("since=2&epoch=x", "validation_error"),
    ],
)  # fmt: skip
def test_a_page_is_refused_as_a_stream_is(query: str, code: str | None) -> None:
    scene = Scene()
    page = scene.ask(f"/channels/{scene.channel}/events?{query}")
    stream = scene.ask(f"/channels/{scene.channel}/ws?{query}", upgrade=True)
    assert isinstance(page, Response)
    if code is None:
        assert page.status == 200
        assert isinstance(stream, OpenStream)
    else:
        assert isinstance(stream, Response)
        assert (page.status, page.body) == (stream.status, stream.body)
        assert decoded(page)["error"] == code


def test_logs_of_guilds_and_users_are_refused_alike() -> None:
    scene = Scene()
    for path in (f"/guilds/{scene.guild}/log", "/users/@me/log"):
        for query, code in (("since=99", "invalid_since"), ("since=-1", "validation_error")):
            page = scene.ask(f"{path}?{query}")
            assert isinstance(page, Response)
            assert (page.status, decoded(page)["error"]) == (400, code)


@pytest.mark.parametrize("limit", ["-1", "0", "1001", str(10**40)])
def test_a_limit_is_any_integer(limit: str) -> None:
    scene = Scene()
    for path in ("/guilds", f"/channels/{scene.channel}/events", f"/channels/{scene.channel}/pins", "/inbox"):
        page = scene.ask(f"{path}?limit={limit}")
        assert isinstance(page, Response)
        assert page.status == 200


@pytest.mark.parametrize("value", ["", "1", "True", "yes"])
def test_a_switch_is_true_or_false(value: str) -> None:
    scene = Scene()
    for path in ("/guilds?all=", "/inbox?unread="):
        page = scene.ask(path + value)
        assert isinstance(page, Response)
        assert page.status == 400
        fine = scene.ask(path + "false")
        assert isinstance(fine, Response)
        assert fine.status == 200


@pytest.mark.parametrize("number", ["7255.0", "7255e0", "72550e-1"])
def test_an_integer_may_be_written_with_a_fraction_of_zero(number: str) -> None:
    scene = Scene()
    path = f"/guilds/{scene.guild}/channels"
    asked = request("POST", path, {}, scene.alice)
    body = f'{{"name": "c", "position": {number}}}'.encode()
    made = scene.world.run(msgspec.structs.replace(asked, body=body))
    assert isinstance(made, Response)
    assert decoded(made)["position"] == 7255
    refused = scene.world.ask("POST", path, {"name": "c", "position": 1.5}, scene.alice)
    assert refused.status == 400


def test_allowed_mentions_are_ids_and_roles() -> None:
    scene = Scene()
    path = f"/channels/{scene.channel}/messages"
    allowed = {"users": ["x"], "roles": ["king", "owner"]}
    refused = scene.world.ask("POST", path, {"content": "x", "allowed_mentions": allowed}, scene.alice)
    assert [problem["field"] for problem in decoded(refused)["details"]] == [
        "allowed_mentions.users[0]", "allowed_mentions.roles[0]",
    ]  # fmt: skip


def test_what_is_behind_the_problems_that_are_told_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, looked_at = Scene(), list[str]()

    def looking(text: str) -> None:
        looked_at.append(text)

    monkeypatch.setattr(messages, "parse_uuid", looking)
    monkeypatch.setattr(logs, "parse_uuid", looking)
    allowed = {"users": ["x"] * 5_000}
    posted = scene.world.ask(
        "POST", f"/channels/{scene.channel}/messages", {"content": "x", "allowed_mentions": allowed}, scene.alice
    )
    positions = [{"log": "channel:x", "epoch": 1, "sequence": 0}] * 1_000
    synced = scene.world.ask("POST", "/sync", {"positions": positions}, scene.alice)
    for refused in (posted, synced):
        assert refused.status == 400
        assert len(decoded(refused)["details"]) == MAX_PROBLEMS
    assert len(looked_at) == 2 * MAX_PROBLEMS, "a refused body counts against no limit of messages"
