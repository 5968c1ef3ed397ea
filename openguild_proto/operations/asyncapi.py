"""Builds the AsyncAPI 3 document of the sockets, from the Structs that encode and decode their messages (PROTOCOL 8, 15)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, get_args

from openguild_proto.gateway.close_codes import GATEWAY_CLOSES
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import COMMANDS, Auth, ClientFrame, Err, Ok, Ready, ServerFrame, Sub, SubOk
from openguild_proto.operations.component_schemas import Schema, describe
from openguild_proto.operations.examples import example_of
from openguild_proto.operations.openapi import SECURITY_SCHEMES, documented_path
from openguild_proto.operations.path_parameters import PATH_PARAMETERS
from openguild_proto.operations.route import Route
from openguild_proto.schemas.fields import SCHEMA_PREFIX
from openguild_proto.schemas.frames import NotificationFrame, StreamFrame
from openguild_proto.ws.close_codes import CLOSE_CODES
from openguild_proto.ws.handshake import SUBPROTOCOL

JSON = "application/json"
CONTENT_TYPES = {Encoding.JSON: JSON, Encoding.MSGPACK: "application/msgpack"}
ANSWERS: Mapping[type[Any], tuple[type[Any], ...]] = {
    Auth: (Ready, Ok, Err),
    Sub: (SubOk, Err),
    **dict.fromkeys(COMMANDS, (Ok, Err)),
}

_ABOUT = (
    "The sockets of an OpenGuild server. Actions are from the server's view: it sends what clients receive. Frames are text "
    "with JSON. With the subprotocol `openguild.v2.msgpack`, they are binary, with the same members as MessagePack. "
    "Ignore unknown members and kinds. /openapi.json describes the routes, as OpenAPI."
)


class Socket(NamedTuple):
    """A channel of the document. `sent`, `received`: the frames, by the server's side. `closes`: code to action and meaning."""

    name: str
    route: str  # the name of its operation
    title: str
    subprotocol: str
    content_type: str
    sent: tuple[type[Any], ...]
    received: tuple[type[Any], ...]
    closes: Mapping[int, tuple[str, str]]


_STREAM_CLOSES = {int(code): (row.action, row.meaning) for code, row in CLOSE_CODES.items()}
_GATEWAY_CLOSES = {int(code): (row.action.value, row.meaning) for code, row in GATEWAY_CLOSES.items()}
_OF_ANNOTATED = get_args(get_args(NotificationFrame)[0])

SOCKETS = (
    Socket(
        "channelStream", "open_channel_stream", "New events of a channel", SUBPROTOCOL, JSON, (StreamFrame,), (),
        _STREAM_CLOSES,
    ),
    Socket(
        "notifications", "open_notification_stream", "Notifications for the caller", SUBPROTOCOL, JSON, _OF_ANNOTATED, (),
        _STREAM_CLOSES,
    ),
    *(
        Socket(
            f"gateway{suffix}", "open_gateway", f"Many logs and commands, in {text}", encoding.value,
            CONTENT_TYPES[encoding], get_args(ServerFrame), get_args(ClientFrame), _GATEWAY_CLOSES,
        )
        for encoding, suffix, text in ((Encoding.JSON, "", "JSON"), (Encoding.MSGPACK, "Msgpack", "MessagePack"))
    ),
)  # fmt: skip


def build_asyncapi(routes: Iterable[Route], version: str, host: str) -> dict[str, Any]:
    """Return a new document as plain dicts and lists. `version` and `host`: of the server."""
    by_name = {route.operation.__name__: route for route in routes}
    kinds = [kind for socket in SOCKETS for kind in (*socket.sent, *socket.received)]
    schemas = describe(kinds, get_args(ClientFrame))
    operations: dict[str, Any] = {}
    for socket in SOCKETS:
        operations |= _operations(socket)
    return {
        "asyncapi": "3.1.0",
        "id": "urn:openguild:sockets",
        "info": {
            "title": "OpenGuild sockets",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "MIT"},
        },
        "defaultContentType": JSON,
        "servers": {
            "this": {
                "host": "{host}",
                "protocol": "ws",
                "description": "the server that returned this document",
                "variables": {"host": {"default": host, "description": "host and port, as in its URL"}},
            }
        },
        "channels": {socket.name: _channel(socket, by_name[socket.route], schemas) for socket in SOCKETS},
        "operations": operations,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                name: _security_scheme(scheme) for name, scheme in SECURITY_SCHEMES.items() if name != "server"
            },
        },
    }


def _channel(socket: Socket, route: Route, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    names = [segment[1:-1] for segment in route.template.split("/") if segment.startswith("{")]
    query = {row.name: {**row.schema, "description": row.text} for row in route.query or ()}
    bindings: dict[str, Any] = {
        "method": "GET",
        "headers": {
            "type": "object",
            "properties": {
                "Authorization": {"type": "string", "description": "`Bearer` and the token"},
                "Sec-WebSocket-Protocol": {
                    "type": "string",
                    "description": f"`{socket.subprotocol}`, and `bearer.<token>` for clients that cannot send a header",
                    "examples": [f"{socket.subprotocol}, bearer.<token>"],
                },
            },
        },
    }
    if query:
        bindings["query"] = {"type": "object", "properties": query}
    return {
        "address": documented_path(route),
        "title": socket.title,
        "servers": [{"$ref": "#/servers/this"}],
        "parameters": {name: {"description": PATH_PARAMETERS[name]["description"]} for name in names},
        "messages": {
            tag_of(kind): _message(kind, socket.content_type, schemas)
            for kind in dict.fromkeys((*socket.sent, *socket.received))
        },
        "bindings": {"ws": bindings},
        "x-subprotocol": socket.subprotocol,
        "x-close-codes": {
            str(code): {"client": action, "meaning": meaning} for code, (action, meaning) in socket.closes.items()
        },
    }


def tag_of(kind: type[Any]) -> str:
    """Return the name of a message: the tag of its Struct, or `event` without one."""
    return kind.__struct_config__.tag or "event"


def _message(kind: type[Any], content_type: str, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    payload = {"$ref": SCHEMA_PREFIX + kind.__name__}
    return {
        "name": tag_of(kind),
        "title": kind.__name__,
        "summary": (kind.__doc__ or "").strip().splitlines()[0],
        "contentType": content_type,
        "payload": payload,
        "examples": [{"payload": example_of(payload, schemas)}],
    }


def _operations(socket: Socket) -> dict[str, Any]:
    """Return the messages that the server sends by itself, and those that it receives, with their answers."""
    channel = f"#/channels/{socket.name}"
    found: dict[str, Any] = {}
    for kind in socket.sent:
        found[f"{socket.name}.send.{tag_of(kind)}"] = {
            "action": "send",
            "channel": {"$ref": channel},
            "messages": [{"$ref": f"{channel}/messages/{tag_of(kind)}"}],
        }
    for kind in socket.received:
        operation: dict[str, Any] = {
            "action": "receive",
            "channel": {"$ref": channel},
            "messages": [{"$ref": f"{channel}/messages/{tag_of(kind)}"}],
        }
        if kind in ANSWERS:
            operation["reply"] = {
                "channel": {"$ref": channel},
                "messages": [{"$ref": f"{channel}/messages/{tag_of(answer)}"} for answer in ANSWERS[kind]],
            }
        found[f"{socket.name}.receive.{tag_of(kind)}"] = operation
    return found


def _security_scheme(scheme: Schema) -> Schema:
    """Return a scheme of OpenAPI as AsyncAPI names it."""
    return {**scheme, "type": "httpApiKey"} if scheme["type"] == "apiKey" else scheme
