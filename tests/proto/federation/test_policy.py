"""Which servers are heard: modes, the configuration, the operator's rulings, guilds."""

from __future__ import annotations

import pytest

from openguild_proto.effects.federation import Peer, Ruling, Standing
from openguild_proto.federation.keys import pinned_key
from openguild_proto.federation.policy import BY_CONFIGURATION, NOT_TRUSTED, FederationPolicy, Mode, judge

ALLOW, DENY, QUARANTINE = Standing.ALLOW, Standing.DENY, Standing.QUARANTINE


@pytest.mark.parametrize(
    ("mode", "configured", "rulings", "standing"),
    [
        (Mode.OFF, ALLOW, [(ALLOW, None)], DENY),
        (Mode.OPEN, None, [], ALLOW),
        (Mode.PINNED, None, [], DENY),
        (Mode.PINNED, ALLOW, [], ALLOW),
        (Mode.PINNED, None, [(ALLOW, None)], ALLOW),
        (Mode.PINNED, None, [(ALLOW, "other")], DENY),
        (Mode.PINNED, None, [(QUARANTINE, None)], DENY),
        (Mode.PINNED, ALLOW, [(QUARANTINE, None)], QUARANTINE),
        (Mode.OPEN, DENY, [(ALLOW, None)], DENY),
        (Mode.OPEN, ALLOW, [(DENY, None)], DENY),
        (Mode.OPEN, QUARANTINE, [], QUARANTINE),
        (Mode.OPEN, None, [(QUARANTINE, "g")], QUARANTINE),
        (Mode.OPEN, None, [(QUARANTINE, None), (DENY, "g")], DENY),
        (Mode.OPEN, None, [(DENY, "other")], ALLOW),
    ],
)
def test_the_severest_decision_counts(
    mode: Mode, configured: Standing | None, rulings: list[tuple[Standing, str | None]], standing: Standing
) -> None:
    policy = FederationPolicy(mode=mode, configured={"a.example": configured} if configured is not None else {})
    peer = Peer("a.example", rulings=tuple(Ruling(found, "why", guild) for found, guild in rulings))
    assert judge(policy, "a.example", peer, "g").standing is standing


def test_a_pinned_server_is_heard() -> None:
    policy = FederationPolicy(mode=Mode.PINNED, pinned={"a.example": (pinned_key("1", b"k" * 32),)})
    assert judge(policy, "a.example", None).standing is ALLOW
    assert judge(policy, "b.example", None) == (DENY, NOT_TRUSTED)


def test_the_reason_is_that_of_the_decision() -> None:
    policy = FederationPolicy(mode=Mode.OPEN, configured={"a.example": QUARANTINE})
    peer = Peer("a.example", rulings=(Ruling(DENY, "spam"),))
    assert judge(policy, "a.example", peer) == (DENY, "spam")
    assert judge(policy, "a.example", None) == (QUARANTINE, BY_CONFIGURATION)


def test_own_authorities() -> None:
    assert FederationPolicy(server_name="a.example").authorities == ("a.example",)
    behind = FederationPolicy(server_name="a.example", base_url="https://chat.a.example:8448")
    assert behind.authorities == ("chat.a.example:8448", "a.example")
