"""Probes: which pings probe, what they repeat, and what follows from their result."""

from __future__ import annotations

import pytest

from openguild_proto.bus.faults import Fault, Problems
from openguild_proto.bus.nats import SILENT, SUBSCRIPTIONS, UNREACHABLE
from openguild_proto.bus.probing import PINGS_PER_PROBE, PINGS_PER_RESUBSCRIBE, Probing

DENIED = Fault("denied", "permits nothing", "permit it")


@pytest.fixture
def problems() -> Problems:
    return Problems("NATS", UNREACHABLE, SILENT)


def next_round(probing: Probing) -> int:
    """Return the number of pings up to the next one that probes."""
    pings = 1
    while not probing.next_ping():
        pings += 1
    return pings


def test_every_third_ping_probes(problems: Problems) -> None:
    probing = Probing(problems.active)
    assert [next_round(probing) for _ in range(3)] == [PINGS_PER_PROBE] * 3


def test_a_denied_subscription_is_repeated_until_it_is_permitted(problems: Problems) -> None:
    probing = Probing(problems.active)
    problems.active.report("subscribe limits", DENIED)
    next_round(probing)
    assert probing.kinds_to_resubscribe == ["limits"]
    problems.active.report("subscribe limits", DENIED)  # denied again
    assert probing.end() == ([], False, False)
    next_round(probing)
    assert probing.end() == (["subscribe limits"], False, True)
    assert probing.kinds_to_resubscribe == []


def test_permitted_channels_are_subscribed_again(problems: Problems) -> None:
    probing = Probing(problems.active)
    problems.active.report("subscribe channel", DENIED)
    next_round(probing)
    assert probing.end() == (["subscribe channel"], True, True)


def test_a_permitted_publish_has_lost_nothing_here(problems: Problems) -> None:
    probing = Probing(problems.active)
    problems.active.report("publish control", DENIED)
    next_round(probing)
    assert probing.end() == (["publish control"], False, False)


def test_refused_subscriptions_stand_until_all_are_repeated(problems: Problems) -> None:
    probing = Probing(problems.active)
    problems.active.report("subscriptions", SUBSCRIPTIONS)
    rounds = PINGS_PER_RESUBSCRIBE // PINGS_PER_PROBE
    for number in range(1, rounds + 1):
        next_round(probing)
        assert probing.resubscribes_all() == (number == rounds)
        assert bool(probing.end().permitted) == (number == rounds)
    assert not probing.resubscribes_all()
