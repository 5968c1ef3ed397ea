"""Writes the tables in docs/ that come from the code, between `<!-- table: name -->` and `<!-- end -->`.

`python docs/tables.py` rewrites them; a test fails if one is out of date.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from openguild_proto.connection.phases import PHASES, TRANSITIONS, Input
from openguild_proto.errors import ErrorCode
from openguild_proto.events import Event
from openguild_proto.gateway import phases as gateway
from openguild_proto.gateway.client_phases import CLIENT_PHASES, CLIENT_TRANSITIONS
from openguild_proto.gateway.close_codes import GATEWAY_CLOSES
from openguild_proto.gateway.following import FOLLOWING, STEPS
from openguild_proto.gateway.frames import (
    ClientFrame,
    LogHead,
    ReadySession,
    ReadyUser,
    ServerFrame,
    SocketLimits,
    SubbedLog,
    SubLog,
)
from openguild_proto.limits import Limits
from openguild_proto.operations.component_schemas import build_schemas, schema_name
from openguild_proto.operations.context import Limit
from openguild_proto.operations.routes import ROUTES
from openguild_proto.policy.permissions import LOWEST_ROLE
from openguild_proto.schemas.fields import CHARACTERS
from openguild_proto.settings.setting import Setting
from openguild_proto.ws.close_codes import CLOSE_CODES
from openguild_runtime.config.declared import keys_of
from openguild_runtime.config.faults import allowed
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.observability.metrics import Metrics

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "site"))
from fields import assigned, source_of  # noqa: E402 - of the site's extension

PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def routes() -> Iterator[str]:
    yield row("method and path", "what", "who", "body", "response", "specific codes", "limits")
    yield row(*["---"] * 7)
    for route in ROUTES:
        permission = route.rights.permission
        who = route.auth if permission is None else f"{route.auth}, {LOWEST_ROLE[permission]} and above"
        path = f"{route.method} `{route.template}`" + ("" if route.client else " *")
        body = f"{schema_name(route.body)}, {route.max_body_bytes // 1024} KiB" if route.body else ""
        answer = f"{route.status} {schema_name(route.responses[route.status])}".strip()
        codes = ", ".join(f"`{code.spec.code}`" for code in route.errors)
        yield row(
            path, route.summary, who, body, answer, codes, ", ".join(limit.name.lower() for limit in route.limits)
        )


def limits() -> Iterator[str]:
    yield row("limit", "counts", "429", "policies")
    yield row(*["---"] * 4)
    for limit in Limit:
        codes = ", ".join(f"`{code.spec.code}`" for code in limit.codes)
        yield row(limit.name.lower(), limit.text, codes, ", ".join(f"`{policy.name}`" for policy in limit.policies))


def bodies() -> Iterator[str]:
    yield row("body", "member", "type", "")
    yield row(*["---"] * 4)
    for name, schema in build_schemas(ROUTES).items():
        required = schema.get("required", ())
        for member, described in schema.get("properties", {}).items():
            notes = [] if member in required else ["optional"]
            yield row(f"`{name}`", f"`{member}`", kind_of(described), ", ".join([*notes, *bounds_of(described)]))


def kind_of(schema: dict[str, Any]) -> str:
    """Return a JSON schema's type in a word or two."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(kind_of(kind) for kind in schema["anyOf"])
    if schema.get("type") == "array":
        return f"[{kind_of(schema['items'])}]"
    known = {"uuid": "UUID", "date-time": "timestamp"}
    return known.get(schema.get("format", "")) or schema.get("type") or "string"


def bounds_of(schema: dict[str, Any]) -> Iterator[str]:
    """Yield the constraints of a value besides its type."""
    for kind in schema.get("anyOf", ()):
        yield from bounds_of(kind)
    if schema.get("type") == "array":
        yield from bounds_of(schema["items"])
    if "maxLength" in schema:
        yield f"{schema.get('minLength', 0)} to {schema['maxLength']:,} characters"
    if CHARACTERS in schema:
        least, most = schema[CHARACTERS]
        yield f"{least} to {most:,} characters"
    if "maximum" in schema:
        yield f"{schema['minimum']} to {schema['maximum']:,}"
    elif schema.get("minimum"):
        yield f"from {schema['minimum']}"
    if "pattern" in schema and CHARACTERS not in schema:
        yield f"`{schema['pattern']}`"
    if 1 <= len(schema.get("enum", ())) <= 8:  # the error codes have their own table
        yield ", ".join(f"`{value}`" for value in schema["enum"])


def errors() -> Iterator[str]:
    yield row("status", "`error`", "meaning", "rejection reason")
    yield row(*["---"] * 4)
    for code in ErrorCode:
        yield row(code.spec.status, f"`{code.spec.code}`", code.spec.message, code.spec.reason or "")


def close_codes() -> Iterator[str]:
    yield row("code", "client should", "meaning")
    yield row(*["---"] * 3)
    for code, line in CLOSE_CODES.items():
        yield row(int(code), line.action, line.meaning)


def connection_events() -> Iterator[str]:
    yield row("event", "fields", "meaning", "what the embedder does")
    yield row(*["---"] * 4)
    for event in get_args(Event):
        meaning, asked = (" ".join(part.split()) for part in (event.__doc__ or "").split("\n\n"))
        names = ", ".join(f"`{field.name}`" for field in msgspec.structs.fields(event))
        yield row(f"`{event.__name__}`", names, meaning, asked)


def connection_limits() -> Iterator[str]:
    yield row("name", "default", "meaning")
    yield row(*["---"] * 3)
    classes, _, comments = source_of(Limits.__module__)
    own = {name: comments.get(node.end_lineno or 0, "") for node, name, _, _ in assigned(classes["Limits"].body)}
    hints = get_type_hints(Limits, include_extras=True)
    for field in dataclasses.fields(Limits):
        configured = [
            mark.meaning for mark in getattr(hints[field.name], "__metadata__", ()) if isinstance(mark, Setting)
        ]
        default = f"{field.default:,}" if isinstance(field.default, int) else field.default
        yield row(f"`{field.name}`", default, configured[0] if configured else own[field.name])


def phases() -> Iterator[str]:
    """Yield the phases of a connection, without the one input that leads from every phase to the same one."""
    yield row("phase", "meaning", "the peer's bytes", "its deadline", "`wants`", "leads to")
    yield row(*["---"] * 6)
    for phase, known in PHASES.items():
        own = "" if known.own is None else f"`{known.own.value}`"
        steps = leads_to(phase, TRANSITIONS[phase], Input.WRITE_TIMEOUT)
        yield row(f"`{phase.value}`", known.meaning, known.reading.value, own, f"`{known.wants.value}`", steps)


def gateway_frames() -> Iterator[str]:
    yield row("frame", "from", "members", "meaning")
    yield row(*["---"] * 4)
    for side, union in (("client", ClientFrame), ("server", ServerFrame)):
        for frame in get_args(union):
            names = [
                f"`{field.encode_name}`" + ("" if field.required else "?") for field in msgspec.structs.fields(frame)
            ]
            meaning = (frame.__doc__ or "").splitlines()[0]
            yield row(f"`{frame.__struct_config__.tag}`", side, ", ".join(names), meaning)
    yield ""
    yield row("object", "members")
    yield row(*["---"] * 2)
    for kind in (SubLog, SubbedLog, SocketLimits, ReadyUser, ReadySession, LogHead):
        names = [f"`{field.encode_name}`" + ("" if field.required else "?") for field in msgspec.structs.fields(kind)]
        yield row(f"`{kind.__name__}`", ", ".join(names))


def gateway_phases() -> Iterator[str]:
    yield row("phase", "meaning", "deadlines", "leads to")
    yield row(*["---"] * 4)
    for phase, known in gateway.PHASES.items():
        names = [f"`{name.value}`" for name in gateway.Deadline if name in gateway.MAY_RUN[phase]]
        steps = leads_to(phase, gateway.TRANSITIONS[phase])
        yield row(f"`{phase.value}`", known.meaning, ", ".join(names), steps)


def gateway_following() -> Iterator[str]:
    yield row("state", "meaning", "served from", "leads to")
    yield row(*["---"] * 4)
    for state, known in FOLLOWING.items():
        steps = [f"{step.value}: `{target.name.lower()}`" for step, target in STEPS[state].items()]
        yield row(f"`{state.name.lower()}`", known.meaning, "ring" if known.in_ring else "log", ", ".join(steps))


def gateway_closes() -> Iterator[str]:
    yield row("code", "client should", "meaning")
    yield row(*["---"] * 3)
    for code, line in GATEWAY_CLOSES.items():
        yield row(int(code), line.action.value, line.meaning)


def gateway_client() -> Iterator[str]:
    yield row("phase", "meaning", "deadlines", "leads to")
    yield row(*["---"] * 4)
    for phase, known in CLIENT_PHASES.items():
        steps = [f"{step.value}: `{target.value}`" for step, target in CLIENT_TRANSITIONS[phase].items()]
        names = ", ".join(f"`{name.value}`" for name in known.deadlines)
        yield row(f"`{phase.value}`", known.meaning, names, ", ".join(steps))


def leads_to(phase: Any, steps: Mapping[Any, Any], *but: Any) -> str:
    """Return each other phase with the inputs that lead to it, without those in `but`."""
    inputs: dict[Any, list[str]] = {}
    for step, target in steps.items():
        if target is not phase and step not in but:
            inputs.setdefault(target, []).append(step.value)
    return "; ".join(f"`{target.value}`: {', '.join(names)}" for target, names in inputs.items())


def configuration() -> Iterator[str]:
    yield row("key", "environment", "default", "allowed numbers", "meaning", "applied at")
    yield row(*["---"] * 6)
    shown = ServerConfig().shown()
    for key in keys_of(ServerConfig):
        name = "OPENGUILD_SERVER__" + key.name.upper().replace(".", "__")
        notes = " (or `..._FILE`)" if key.is_secret else " (list)" if key.is_list else ""
        default = "" if shown[key.name] in (None, []) else f"`{shown[key.name]}`"
        setting = key.setting
        applied = "start" if not setting.live else "SIGHUP, `admin set`" if setting.settable else "SIGHUP"
        yield row(f"`{key.name}`", f"`{name}`{notes}", default, allowed(key), setting.meaning, applied)


def metrics() -> Iterator[str]:
    yield row("series", "type", "meaning")
    yield row(*["---"] * 3)
    for family in sorted(Metrics("0", native_ring=True).registry.collect(), key=lambda family: family.name):
        if family.name.startswith("openguild"):
            suffix = {"counter": "_total", "histogram": "_bucket, _sum, _count"}.get(family.type, "")
            yield row(f"`{family.name}{suffix}`", family.type, family.documentation)


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    table.__name__: table
    for table in (
        routes,
        limits,
        bodies,
        errors,
        close_codes,
        connection_events,
        connection_limits,
        phases,
        configuration,
        metrics,
        gateway_frames,
        gateway_phases,
        gateway_following,
        gateway_closes,
        gateway_client,
    )
}


def filled(text: str) -> str:
    """Return the document with every table as the code has it now."""
    return PLACE.sub(lambda found: found[1] + "\n".join(TABLES[found[2]]()) + "\n" + found[3], text)


def main() -> int:
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text()
        if text != filled(text):
            path.write_text(filled(text))
            sys.stdout.write(f"rewrote {path.name}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
