"""Addresses that another server may not send this one to."""

from __future__ import annotations

import pytest

from openguild_proto.federation.addresses import may_connect


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.255",
        "240.0.0.1", "255.255.255.255", "192.88.99.1", "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1",
        "::ffff:0:127.0.0.1", "fe80::1", "fe80::1%eth0", "2606:4700::1%lo", "fc00::1", "fd12::1", "fec0::1", "ff02::1",
        "2001:db8::1", "2001::1", "2002:7f00:1::1", "2002:808:808::1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808", "100::1", "3fff::1", "4000::1", "localhost", "", "127.1", "0x7f000001", "2130706433", "1.2.3.4.5",
    ],
)  # fmt: skip
def test_refused_addresses(address: str) -> None:
    assert not may_connect(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "223.255.255.255", "2606:4700::1111",
     "2a00::1", "64:ff9b::808:808"],
)  # fmt: skip
def test_addresses_of_the_whole_internet(address: str) -> None:
    assert may_connect(address)
