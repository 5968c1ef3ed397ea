"""Which connection is let in, and which one makes room for it."""

from __future__ import annotations

import pytest

from openguild_proto.policy.admission import Admission, Refused


def full(count: int = 3) -> Admission[str]:
    admission: Admission[str] = Admission(max_per_address=2, max_connections=count)
    for number in range(count):
        admission.opened(f"c{number}", f"192.0.2.{number}")
    return admission


def test_an_address_holds_no_more_than_its_quota_unless_it_is_a_trusted_proxy() -> None:
    admission = full(3)
    admission.max_connections = 10
    admission.opened("second", "192.0.2.0")
    assert admission.check("192.0.2.0", is_trusted=False) is Refused.ADDRESS_FULL
    assert admission.check("192.0.2.0", is_trusted=True) is None
    assert admission.check("192.0.2.1", is_trusted=False) is None
    assert admission.closed("second")
    assert admission.check("192.0.2.0", is_trusted=False) is None


def test_addresses_of_one_ipv6_network_share_a_quota() -> None:
    admission: Admission[str] = Admission(max_per_address=1, max_connections=10)
    admission.opened("a", "2001:db8::1")
    assert admission.check("2001:db8::2", is_trusted=False) is Refused.ADDRESS_FULL


def test_the_oldest_request_that_can_end_makes_room_and_no_stream_does() -> None:
    admission = full()
    assert admission.check("198.51.100.1", is_trusted=False) is Refused.SERVER_FULL
    admission.became_stream("c0")
    assert admission.to_shed(lambda name: True) == "c1"
    assert admission.to_shed(lambda name: name == "c2") == "c2"
    assert admission.to_shed(lambda name: False) is None
    assert admission.closed("c1")
    assert admission.check("198.51.100.1", is_trusted=False) is None


def test_nothing_is_let_in_during_a_drain() -> None:
    admission = full(1)
    admission.draining = True
    assert admission.check("198.51.100.1", is_trusted=True) is Refused.DRAINING


def test_a_connection_ends_once() -> None:
    admission = full(1)
    assert [admission.closed("c0"), admission.closed("c0"), admission.closed("unknown")] == [True, False, False]
    assert len(admission) == 0


@pytest.mark.parametrize("refused", Refused)
def test_a_refusal_names_the_setting_that_bounds_it(refused: Refused) -> None:
    assert refused is Refused.DRAINING or "websocket.max_connections" in refused.value
