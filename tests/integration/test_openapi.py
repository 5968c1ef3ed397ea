"""`/openapi.json` is a valid document, and the running server answers as it describes."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import msgspec
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from openguild_proto import limits
from openguild_proto.canonical.event import CanonicalEvent, canonical_bytes, event_hash, event_id
from openguild_proto.operations.openapi import build_openapi
from openguild_proto.operations.routes import ROUTES
from tests.support.chat import PASSWORD, Chat, User, receive
from tests.support.server import ROOT, ServerProcess
from tests.support.waiting import free_port

DOCUMENT: dict[str, Any] = json.loads(json.dumps(build_openapi(ROUTES, "1")))


def path_of(template: str) -> str:
    return template if template in DOCUMENT["paths"] else "/client/v1" + template


def follow(node: dict[str, Any]) -> dict[str, Any]:
    """Resolve a reference."""
    while "$ref" in node:
        target: Any = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def check(schema: dict[str, Any], value: Any) -> None:
    """Check that `value` fits the schema and has no member that the schema lacks."""
    whole = {**schema, "components": DOCUMENT["components"]}
    Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)
    known_members(schema, value)


def known_members(schema: dict[str, Any], value: Any) -> None:
    described = follow(schema)
    if isinstance(value, list):
        for item in value:
            known_members(described["items"], item)
    elif isinstance(value, dict) and "properties" in described:
        assert value.keys() <= described["properties"].keys()
        for name, member in value.items():
            known_members(described["properties"][name], member)


def check_answer(method: str, template: str, answer: httpx.Response) -> Any:
    """Check that the route describes the answer's status, headers and body; return the body."""
    responses = DOCUMENT["paths"][path_of(template)][method]["responses"]
    response = follow(responses.get(str(answer.status_code)) or responses["default"])
    described = DOCUMENT["components"]["headers"].keys() - {"Cache-Control"}  # every answer has this one
    assert {name for name in described if name in answer.headers} <= response.get("headers", {}).keys()
    for name, header in response.get("headers", {}).items():
        schema = follow(header)
        value = answer.headers.get(name)
        assert value is not None or not schema.get("required"), name
        if value is not None:
            check(schema["schema"], int(value) if schema["schema"]["type"] == "integer" else value)
    if not answer.content:
        assert "content" not in response
        return None
    kind = answer.headers["content-type"].partition(";")[0]
    value = answer.json() if kind == "application/json" else answer.text
    check(response["content"][kind]["schema"], value)
    return value


def test_the_document_is_valid() -> None:
    validate(DOCUMENT)


def test_what_is_mandatory_and_how_long_it_may_be() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["Credentials"]["required"] == ["username", "password"]
    assert schemas["Login"]["required"] == ["identifier", "secret", "device"]
    assert schemas["Login"]["properties"]["device"] == {"$ref": "#/components/schemas/Device"}
    assert schemas["Device"]["required"] == ["device_id"]
    assert schemas["RefreshToken"]["required"] == ["refresh_token"]
    assert "x-mandatory" not in json.dumps(DOCUMENT)
    content = schemas["PostMessage"]["properties"]["content"]
    assert content["x-characters"] == [1, limits.MAX_MESSAGE_CHARS]
    assert schemas["Name"]["properties"]["name"]["x-characters"] == [1, limits.MAX_NAME_CHARS]
    assert schemas["CanonicalEvent"]["required"] == list(CanonicalEvent.__struct_fields__)
    assert schemas["ListedEvent"]["properties"]["event"] == {"$ref": "#/components/schemas/CanonicalEvent"}
    paths = DOCUMENT["paths"]
    parameters = {line["name"]: line for line in paths["/client/v1/channels/{channel_id}/events"]["get"]["parameters"]}
    assert parameters["limit"]["schema"] == {"type": "integer", "default": limits.DEFAULT_PAGE_EVENTS}, "it is clamped"
    posted = paths["/client/v1/channels/{channel_id}/messages"]["post"]
    assert posted["requestBody"]["required"] is True
    assert "Idempotency-Key" in {line["name"] for line in posted["parameters"]}
    assert paths["/client/v1/guilds/{guild_id}/invites"]["post"]["requestBody"]["required"] is False
    for operation in (operation for path in paths.values() for operation in path.values()):
        assert operation["responses"].keys() & {"default", "501"}


def test_answers_are_as_described(alice: User, chat: Chat) -> None:
    guild = check_answer("post", "/guilds", alice.post("/guilds", {"name": "g"}))["guild_id"]
    alice.guild("second")
    page = alice.get("/guilds", params={"limit": 1})
    assert "x-next-after" in page.headers
    check_answer("get", "/guilds", page)
    channels = "/guilds/{guild_id}/channels"
    channel = check_answer("post", channels, alice.post(f"/guilds/{guild}/channels", {"name": "c"}))["channel_id"]
    check_answer("get", channels, alice.get(f"/guilds/{guild}/channels"))
    check_answer("get", "/guilds/{guild_id}/members", alice.get(f"/guilds/{guild}/members"))
    invites = f"/guilds/{guild}/invites"
    code = check_answer("post", "/guilds/{guild_id}/invites", alice.post(invites, {"max_uses": 1}))["code"]
    check_answer("get", "/guilds/{guild_id}/invites", alice.get(invites))
    check_answer("get", "/invites/{code}", alice.get(f"/invites/{code}"))
    bob = chat.user()
    check_answer("post", "/invites/{code}/accept", bob.post(f"/invites/{code}/accept"))
    messages = "/channels/{channel_id}/messages"
    with alice.stream(channel) as stream, alice.notifications() as notifications:
        nonced = bob.post(f"/channels/{channel}/messages", {"content": "x"}, **{"Idempotency-Key": "one"})
        check_answer("post", messages, nonced)
        check({"$ref": "#/components/schemas/StreamFrame"}, receive(stream, 1)[0])
        check_answer("post", "/channels/{channel_id}/read", alice.post(f"/channels/{channel}/read"))
        alice.channel(guild, "another")
        heard = receive(notifications, 3)
        assert {frame["kind"] for frame in heard} == {"channel_message", "channel_read", "channel_created"}
        for frame in heard:
            check({"$ref": "#/components/schemas/NotificationFrame"}, frame)
    check_answer("get", "/channels/{channel_id}/events", alice.get(f"/channels/{channel}/events"))
    check_answer("get", "/channels/unread", alice.get("/channels/unread"))
    check_answer("get", "/users/me", alice.get("/users/me"))
    check_answer("get", "/sessions/devices", alice.get("/sessions/devices"))
    body = {"identifier": alice.name, "secret": PASSWORD, "device": {"device_id": "d"}}
    tokens = check_answer("post", "/sessions/login", chat.http.post("/sessions/login", json=body))
    token = {"refresh_token": tokens["refresh_token"]}
    check_answer("post", "/sessions/revoke", chat.http.post("/sessions/revoke", json=token))


def test_refusals_are_as_described(alice: User, chat: Chat, channel: str) -> None:
    for method, template, answer in (
        ("get", "/users/me", chat.http.get("/users/me")),
        ("post", "/sessions/login", chat.http.post("/sessions/login", json={})),
        ("post", "/users/register", chat.http.post("/users/register", json={"username": "x"})),
        ("post", "/channels/{channel_id}/messages", alice.post(f"/channels/{channel}/messages", {})),
        ("get", "/channels/{channel_id}/events", alice.get(f"/channels/{channel}/events?since=1&before=2")),
        ("get", "/mls/key-packages", chat.http.get("/mls/key-packages")),
    ):
        assert not answer.is_success
        check_answer(method, template, answer)
    assert "www-authenticate" in chat.http.get("/users/me").headers


@pytest.mark.parametrize("path", ["/health", "/live", "/ready", "/version", "/metrics", "/openapi.json"])
def test_operational_answers_are_as_described(path: str, chat: Chat) -> None:
    assert check_answer("get", path, chat.http.get(path))


def test_not_ready_is_as_described(tmp_path: Any) -> None:
    url = f"postgresql://127.0.0.1:{free_port()}/none"
    server = ServerProcess(tmp_path, DATABASE_URL=url)
    with server.start(ready=False):
        server.wait_answers()
        answer = httpx.get(server.base_url + "/ready", trust_env=False, verify=False)
        assert answer.status_code == 503
        assert re.fullmatch("[0-9]+", answer.headers["retry-after"])
        check_answer("get", "/ready", answer)
        server.stop()


def test_the_event_in_the_documents_is_a_real_one() -> None:
    [text] = re.findall(r"```json\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.DOTALL)
    shown = json.loads(text)
    check({"$ref": "#/components/schemas/CanonicalEvent"}, shown)
    assert list(shown) == list(CanonicalEvent.__struct_fields__)
    event = msgspec.convert(shown, CanonicalEvent)
    assert event_id(event_hash(canonical_bytes(event))) == shown["event_id"]
