"""The addresses to which a server does not connect on the word of another server (PROTOCOL 16.3.4).

A name that a peer chooses may lead anywhere: to this machine, to its internal network, to a cloud's metadata.
"""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

REFUSED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # RFC 791 3.2: this network
        "10.0.0.0/8",  # RFC 1918: private
        "100.64.0.0/10",  # RFC 6598: carrier-grade NAT
        "127.0.0.0/8",  # RFC 1122 3.2.1.3: loopback
        "169.254.0.0/16",  # RFC 3927: link-local, and cloud metadata
        "172.16.0.0/12",  # RFC 1918
        "192.0.0.0/24",  # RFC 6890
        "192.0.2.0/24",  # RFC 5737: documentation
        "192.88.99.0/24",  # RFC 7526: 6to4 relays
        "192.168.0.0/16",  # RFC 1918
        "198.18.0.0/15",  # RFC 2544: benchmarks
        "198.51.100.0/24",  # RFC 5737
        "203.0.113.0/24",  # RFC 5737
        "224.0.0.0/3",  # RFC 5771 and RFC 1112 4: multicast, and all above
    )
)
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # RFC 4291 2.4: other addresses are not globally reachable
REFUSED_6: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "2001::/23",  # RFC 2928: Teredo, benchmarks and others
        "2001:db8::/32",  # RFC 3849: documentation
        "2002::/16",  # RFC 3056: 6to4, which embeds any IPv4 address
        "3fff::/20",  # RFC 9637: documentation
    )
)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052 2.1: its last 32 bits are an IPv4 address


def may_connect(address: str) -> bool:
    """Return whether a server may connect to the IP address `address`, if private ones are not allowed."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed in NAT64:
            return _is_public_v4(ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF))
        return (
            parsed.scope_id is None and parsed in GLOBAL_UNICAST and not any(parsed in network for network in REFUSED_6)
        )
    return _is_public_v4(parsed)


def _is_public_v4(address: ipaddress.IPv4Address) -> bool:
    return not any(address in network for network in REFUSED)
