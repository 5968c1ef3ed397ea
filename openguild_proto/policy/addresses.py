"""Parses addresses, and gives the key under which limits count an address (PROTOCOL 2.7.3)."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

PREFIX_BITS = 64  # RFC 6177 2: a site gets at least a /64, so one host may have 2^64 addresses


def parse_address(text: str) -> Address | None:
    """Parse an address; IPv4 inside IPv6 (`::ffff:192.0.2.1`, RFC 4291 2.5.5.2) is IPv4.

    None: not an address, or one with a zone id, which has a meaning on one host only (RFC 4007 11.2).
    """
    if "%" in text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if address.version == 6 else None
    return mapped or address


@lru_cache(maxsize=1_024)  # called for each request, mostly with the same few addresses
def limit_key(address: str) -> str:
    """Return `address`, or for IPv6 its /64. A text that is not an address, such as a socket's path, is returned as it is."""
    parsed = parse_address(address.partition("%")[0])
    if parsed is None:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.IPv6Network((int(parsed), PREFIX_BITS), strict=False))
