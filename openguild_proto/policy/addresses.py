"""Parses addresses, and returns the key under which limits count an address (PROTOCOL 2.7.3)."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")  # RFC 4291 2.5.5.2

PREFIX_BITS = 64  # RFC 6177 2: a site gets at least a /64, so one host may have 2^64 addresses


def parse_address(text: str) -> Address | None:
    """Parse an address. An IPv4-mapped one (`::ffff:192.0.2.1`, RFC 4291 2.5.5.2) is returned as IPv4.

    Return None for text that is not an address, or has a zone id, which has a meaning on one host only (RFC 4007 11.2).
    """
    if "%" in text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if address.version == 6 else None
    return mapped or address


def parse_network(text: str) -> Network:
    """Parse a network or an address. IPv4-mapped ones are returned as IPv4, as by `parse_address`.

    Raises ValueError, also for a zone id, because `parse_address` returns no address with one.
    """
    network = ipaddress.ip_network(text)
    if "%" in text:
        raise ValueError(f"{text!r} has a zone id")
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(MAPPED):
        return ipaddress.IPv4Network((int(network.network_address) & 0xFFFF_FFFF, network.prefixlen - MAPPED.prefixlen))
    return network


@lru_cache(maxsize=1_024)  # called for each request, mostly with the same few addresses
def limit_key(address: str) -> str:
    """Return `address`, or for IPv6 its /64. Text that is not an address, such as a socket's path, is returned unchanged."""
    parsed = parse_address(address.partition("%")[0])
    if parsed is None:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.IPv6Network((int(parsed), PREFIX_BITS), strict=False))
