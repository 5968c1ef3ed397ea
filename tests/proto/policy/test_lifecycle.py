"""The phases of a process: what may be answered, and when it is draining."""

from __future__ import annotations

from itertools import product

import pytest

from openguild_proto.policy.lifecycle import Input, Lifecycle, Phase


def after(*inputs: Input) -> Lifecycle:
    lifecycle = Lifecycle()
    for given in inputs:
        (lifecycle.started if given is Input.STARTED else lifecycle.drain)()
    return lifecycle


@pytest.mark.parametrize(
    ("inputs", "phase", "has_started", "is_draining"),
    [
        ((), Phase.STARTING, False, False),
        ((Input.STARTED,), Phase.SERVING, True, False),
        ((Input.STARTED, Input.DRAIN), Phase.DRAINING, True, True),
        ((Input.DRAIN,), Phase.DRAINING_UNSTARTED, False, True),
        ((Input.DRAIN, Input.STARTED), Phase.DRAINING, True, True),
    ],
)
def test_phases(inputs: tuple[Input, ...], phase: Phase, has_started: bool, is_draining: bool) -> None:
    lifecycle = after(*inputs)
    assert (lifecycle.phase, lifecycle.has_started, lifecycle.is_draining) == (phase, has_started, is_draining)


def test_a_drain_is_never_taken_back() -> None:
    for inputs in product(Input, repeat=4):
        draining = [after(*inputs[:count]).is_draining for count in range(5)]
        assert draining == sorted(draining)
