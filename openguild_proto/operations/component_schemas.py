"""The schemas of all bodies and frames, from their Structs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec

from openguild_proto.canonical.event import CanonicalEvent
from openguild_proto.errors import ErrorCode
from openguild_proto.operations.context import Limit
from openguild_proto.operations.route import Media, Route
from openguild_proto.schemas.accounts import Body
from openguild_proto.schemas.events import CONTENTS, RedactedContent
from openguild_proto.schemas.fields import EVENT_ID_EXAMPLE, ID_EXAMPLE, MANDATORY_MARK, SCHEMA_PREFIX
from openguild_proto.schemas.messages import Reaction

Schema: TypeAlias = dict[str, Any]

# Only other schemas refer to them: they are raw bytes in answers.
_BESIDE = (CanonicalEvent, Reaction, *CONTENTS.values(), RedactedContent)


def build_schemas(routes: Iterable[Route]) -> dict[str, Schema]:
    """Return all component schemas by name, in the order of the routes."""
    routes = list(routes)
    asked = [route.body for route in routes if route.body is not None]
    kinds = [kind for route in routes for kind in (route.body, *route.responses.values(), route.frames)]
    return {**describe(kinds, asked), "ApiError": _error_schema()}


def describe(kinds: Iterable[Any], asked: Iterable[Any]) -> dict[str, Schema]:
    """Return the schemas of `kinds` and of all that they refer to. `asked`: those that clients send."""
    types = {
        str(kind): kind for kind in kinds if kind is not None and not isinstance(kind, Media)
    }  # a list has no hash
    _, components = msgspec.json.schema_components((*types.values(), *_BESIDE), ref_template=SCHEMA_PREFIX + "{name}")
    unions = {
        name_of(kind): _union(kind) for kind in types.values() if not is_list(kind) and not isinstance(kind, type)
    }
    schemas: dict[str, Schema] = msgspec.json.decode(
        msgspec.json.encode({**components, **unions})
    )  # turns defaults that are tuples into lists
    written = _written(schemas) - _reachable(schemas, [name_of(kind) for kind in asked])
    for name, schema in schemas.items():
        _require_mandatory(schema)
        for member in schema.get("properties", {}).values():
            _tell_absence(member, is_left_out=name in written)
    _describe_events(schemas["CanonicalEvent"])
    if "ChannelChange" in schemas:
        schemas["ChannelChange"]["anyOf"] = [{"required": [name]} for name in schemas["ChannelChange"]["properties"]]
    if "Readiness" in schemas:
        schemas["Readiness"]["properties"]["status"]["enum"] = ["ready", "degraded", "unavailable", "draining"]
    return schemas


def _describe_events(event: Schema) -> None:
    event["required"] = list(event["properties"])  # defaults are for builders only; every event has all members
    contents = [schema_of(kind) for kind in dict.fromkeys((*CONTENTS.values(), RedactedContent))]
    event["properties"]["content"] = {"anyOf": contents}
    event["properties"]["event_id"] |= {"pattern": "^\\$[1-9A-HJ-NP-Za-km-z]{32,44}$", "examples": [EVENT_ID_EXAMPLE]}
    event["properties"]["origin_ts"]["description"] = "UTC milliseconds; for display, not for ordering"
    event["properties"]["room_id"] |= {
        "description": "the id of the channel, guild or user in whose log the event is",
        "format": "uuid",
        "examples": [ID_EXAMPLE],
    }
    event["properties"]["sender"]["description"] = "a user, or the server's name for a change by its operator"


def _written(schemas: dict[str, Schema]) -> set[str]:
    """Return the names of Structs that leave absent members out where a server writes them."""
    found: set[str] = set()
    kinds: list[type[msgspec.Struct]] = [Body]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.__struct_config__.omit_defaults and schemas.get(kind.__name__, {}).get("type") == "object":
            found.add(kind.__name__)
    return found


def _reachable(schemas: dict[str, Schema], names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found and name in schemas:
            found.add(name)
            waiting += _references(schemas[name])
    return found


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [name for item in node for name in _references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"].removeprefix(SCHEMA_PREFIX)] if "$ref" in node else []
    return own + [name for item in node.values() for name in _references(item)]


def _tell_absence(member: Schema, *, is_left_out: bool) -> None:
    """Say in words what an absent member means: generators take one with a default for one that is always there.

    `is_left_out`: a server leaves the member out instead of writing null.
    """
    default = member.pop("default", None)
    if default is not None and default not in ([], ""):
        member["description"] = f"absent: {msgspec.json.encode(default).decode()}"
    if is_left_out and "anyOf" in member:
        kinds = [kind for kind in member["anyOf"] if kind != {"type": "null"}]
        if len(kinds) == 1:
            del member["anyOf"]
            member |= kinds[0]


def _union(kind: Any) -> Schema:
    (described,), _ = msgspec.json.schema_components((kind,), ref_template=SCHEMA_PREFIX + "{name}")
    return {key: value for key, value in described.items() if key != "title"}


def _require_mandatory(schema: Schema) -> None:
    """Mark members as required that have a default in the Struct but are refused when absent."""
    for name, member in schema.get("properties", {}).items():
        if member.pop(MANDATORY_MARK, False):
            member.pop("default", None)
            schema.setdefault("required", []).append(name)
            kinds = [kind for kind in member.pop("anyOf", []) if kind != {"type": "null"}]
            member.update(*kinds)


def schema_of(kind: Any) -> Schema:
    """Return a reference to the schema of a body, or the schema of a `Media` or a list."""
    if isinstance(kind, Media):
        return kind.schema
    if is_list(kind):
        return {"type": "array", "items": schema_of(kind.__args__[0])}
    return {"$ref": SCHEMA_PREFIX + name_of(kind)}


def schema_name(kind: Any) -> str:
    """Return a schema's name for the tables: `Guild`, `[Guild]` for a list, "" without one."""
    if kind is None or isinstance(kind, Media):
        return ""
    return f"[{name_of(kind.__args__[0])}]" if is_list(kind) else name_of(kind)


def is_list(kind: Any) -> bool:
    """Return whether the body is a list of Structs."""
    return getattr(kind, "__origin__", None) is list


def name_of(kind: Any) -> str:
    """Return the name of a Struct, or the title of a union."""
    if isinstance(kind, type):
        return kind.__name__
    titles = [str(meta.title) for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
    return titles[0]


def _error_schema() -> Schema:
    problem = {
        "type": "object",
        "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
        "required": ["field", "message"],
    }
    return {
        "type": "object",
        "properties": {
            "error": {"type": "string", "enum": sorted({code.spec.code for code in ErrorCode})},
            "message": {"type": "string"},
            "request_id": {"type": "string"},
            "details": {"type": "array", "items": problem},
            "limit": {"type": "string", "enum": [limit.name.lower() for limit in Limit]},
            "retry_after_ms": {"type": "integer", "minimum": 1},
        },
        "required": ["error", "message", "request_id"],
    }
