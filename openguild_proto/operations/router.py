"""Matches a path to its route, in a tree of segments.

Client routes are at the root and under `/client/v1`, operational ones only at the root. Metrics use the template as a
label, never a path that a client chose (PROTOCOL 3.1.6).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from openguild_proto.operations.route import Route
from openguild_proto.schemas.decode import decode_component, parse_uuid

CLIENT_PREFIX = "/client/v1"
MAX_REMEMBERED = 4_096  # cached matches of paths with parameters; a few channels have most of them
MAX_REMEMBERED_CHARS = 200  # of a path
UUID_PARAMETERS = frozenset({"guild_id", "channel_id", "user_id", "log_id"})


class Matched(NamedTuple):
    """The matched route. `template`: with its prefix. `params`: decoded, UUIDs in canonical form."""

    route: Route
    template: str
    params: Mapping[str, str]


class BadParameter(NamedTuple):
    """The path matches a template, but a parameter is invalid."""

    route: Route
    template: str
    name: str
    message: str


class WrongMethod(NamedTuple):
    """The path exists for other methods. `allow`: the value of the header."""

    template: str
    allow: str


class Router:
    """Matches paths to a table of routes, segment by segment."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        self._fixed: dict[tuple[str, str], Matched] = {}  # by method and path, for templates without parameters
        self._remembered: dict[tuple[str, str], Matched] = {}  # by method and path
        self._parameters: dict[str, list[tuple[int, str]]] = {}  # by template: the index and name of each parameter
        for route in routes:
            node = self._root
            parameters = self._parameters[route.template] = []
            for place, segment in enumerate(route.template.split("/")[1:]):
                if segment.startswith("{"):
                    parameters.append((place, segment[1:-1]))
                    node.parameter = node.parameter or _Node()
                    node = node.parameter
                else:
                    node = node.literal.setdefault(segment, _Node())
            node.routes.append(route)
            if "{" not in route.template:
                self._fix(route)

    def _fix(self, route: Route) -> None:
        for method in (route.method, "HEAD") if route.method == "GET" else (route.method,):
            for prefix in ("", CLIENT_PREFIX) if route.client else ("",):
                path = prefix + route.template
                self._fixed[method, path] = Matched(route, path, MappingProxyType({}))

    def match(self, method: str, path: str) -> Matched | BadParameter | WrongMethod | None:
        """Return the route for `method` and the raw `path`, or None if there is no such path. HEAD matches as GET."""
        known = self._fixed.get((method, path)) or self._remembered.get((method, path))
        if known is not None:
            return known
        found = self._match(method, path)
        if isinstance(found, Matched) and len(path) <= MAX_REMEMBERED_CHARS:
            if len(self._remembered) == MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[method, path] = found
        return found

    def _match(self, method: str, path: str) -> Matched | BadParameter | WrongMethod | None:
        client = path.startswith(CLIENT_PREFIX + "/")
        segments = (path.removeprefix(CLIENT_PREFIX) if client else path).split("/")[1:]
        routes = self._find(segments, client)
        if not routes:
            return None
        route = next((route for route in routes if route.method == ("GET" if method == "HEAD" else method)), None)
        prefix = CLIENT_PREFIX if client else ""
        if route is None:
            methods = {route.method for route in routes} | {"OPTIONS"}
            methods |= {"HEAD"} if "GET" in methods else set()
            return WrongMethod(prefix + routes[0].template, ", ".join(sorted(methods)))
        template = prefix + route.template
        params: dict[str, str] = {}
        for place, name in self._parameters[route.template]:
            value = decode_component(segments[place])
            if value is None or not value or "\0" in value:
                return BadParameter(route, template, name, "is not valid percent-encoded UTF-8")
            if name in UUID_PARAMETERS:
                value = parse_uuid(value)
                if value is None:
                    return BadParameter(route, template, name, "must be a UUID")
            params[name] = value
        return Matched(route, template, MappingProxyType(params))

    def _find(self, segments: list[str], client: bool) -> list[Route]:
        """Return the routes of the most literal matching template: `@me` and `unread` take precedence over a parameter."""
        node: _Node | None = self._root
        for segment in segments:
            if node is None:
                return []
            name = segment.replace("%40", "@")  # some clients percent-encode `@me`
            node = node.literal.get(name) or (node.parameter if segment else None)
        return [route for route in node.routes if route.client or not client] if node is not None else []


class _Node:
    __slots__ = ("literal", "parameter", "routes")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.routes: list[Route] = []
