"""Structured field values (RFC 9651): the dictionaries of HTTP signatures and digests.

Decimals, dates and display strings are refused, because no field here uses them. A repeated name is refused too.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from openguild_proto.federation.faults import Fault, SignatureFault

MAX_MEMBERS = 16  # of a dictionary, a list, or parameters

_KEY = re.compile(r"[a-z*][a-z0-9_.*-]*", re.ASCII)
_QUOTED = re.compile(r'(?:[ !#-\[\]-~]|\\["\\])*+', re.ASCII)
_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*", re.ASCII)
_INTEGER = re.compile(r"-?[0-9]{1,15}(?![0-9.])", re.ASCII)
_BYTES = re.compile(r":([A-Za-z0-9+/]*={0,2}):", re.ASCII)
_BOOLEAN = re.compile(r"\?([01])", re.ASCII)
_COMMA = re.compile(r",[ \t]*+(?!$)", re.ASCII)
_BLANKS = re.compile(r"[ \t]+", re.ASCII)
_SPACES = re.compile(r" +", re.ASCII)
_SEMICOLON = re.compile(r"; *", re.ASCII)


class Token(str):
    """A token, written without quotes."""

    __slots__ = ()


Bare: TypeAlias = str | Token | int | bool | bytes
Parameters: TypeAlias = dict[str, Bare]


class Item(NamedTuple):
    """A value and its parameters, in order."""

    value: Bare
    parameters: Parameters

    def __str__(self) -> str:
        return write_bare(self.value) + write_parameters(self.parameters)


class InnerList(NamedTuple):
    """A list in parentheses, and its parameters, in order."""

    items: tuple[Item, ...]
    parameters: Parameters

    def __str__(self) -> str:
        return f"({' '.join(map(str, self.items))}){write_parameters(self.parameters)}"


Dictionary: TypeAlias = Mapping[str, Item | InnerList]


def parse_dictionary(text: str) -> Dictionary:
    """Parse the value of a field. Raises SignatureFault (malformed)."""
    reader = _Reader(text.strip(" "))
    members: dict[str, Item | InnerList] = {}
    while not reader.at_end:
        if members:
            reader.find(_BLANKS)
            reader.take(_COMMA)
        name = reader.take(_KEY)[0]
        member = reader.member() if reader.skip("=") else Item(True, reader.parameters())
        if name in members or len(members) == MAX_MEMBERS:
            raise SignatureFault(Fault.MALFORMED)
        members[name] = member
    return members


def write_bare(value: Bare) -> str:
    """Write a value in its canonical form (RFC 9651 4.1)."""
    if isinstance(value, bool):
        return f"?{value:d}"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, bytes):
        return f":{base64.b64encode(value).decode('ascii')}:"
    if isinstance(value, Token):
        return str(value)
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


def write_parameters(parameters: Parameters) -> str:
    """Write parameters, each after a semicolon."""
    return "".join(
        f";{name}" if value is True else f";{name}={write_bare(value)}" for name, value in parameters.items()
    )


class _Reader:
    """Reads a text from left to right."""

    __slots__ = ("_at", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._text)

    def skip(self, character: str) -> bool:
        """Skip `character` if it is next. Return whether it was."""
        found = self._text.startswith(character, self._at)
        self._at += found
        return found

    def find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Skip `pattern` if it is next, and return the match, else None."""
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def take(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Pass over `pattern`. Raises SignatureFault if it is not next."""
        found = self.find(pattern)
        if found is None:
            raise SignatureFault(Fault.MALFORMED)
        return found

    def member(self) -> Item | InnerList:
        return self._inner_list() if self.skip("(") else Item(self._bare(), self.parameters())

    def _inner_list(self) -> InnerList:
        items: list[Item] = []
        while True:
            spaced = self.find(_SPACES) is not None
            if self.skip(")"):
                return InnerList(tuple(items), self.parameters())
            if (items and not spaced) or len(items) == MAX_MEMBERS:
                raise SignatureFault(Fault.MALFORMED)
            items.append(Item(self._bare(), self.parameters()))

    def parameters(self) -> Parameters:
        found: Parameters = {}
        while self.find(_SEMICOLON) is not None:
            name = self.take(_KEY)[0]
            value = self._bare() if self.skip("=") else True
            if name in found or len(found) == MAX_MEMBERS:
                raise SignatureFault(Fault.MALFORMED)
            found[name] = value
        return found

    def _bare(self) -> Bare:
        if self.skip('"'):
            text = self.take(_QUOTED)[0]
            if not self.skip('"'):
                raise SignatureFault(Fault.MALFORMED)
            return re.sub(r"\\(.)", r"\1", text)
        if (number := self.find(_INTEGER)) is not None:
            return int(number[0])
        if (raw := self.find(_BYTES)) is not None:
            try:
                return base64.b64decode(raw[1], validate=True)
            except ValueError:
                raise SignatureFault(Fault.MALFORMED) from None
        if (flag := self.find(_BOOLEAN)) is not None:
            return flag[1] == "1"
        return Token(self.take(_TOKEN)[0])
