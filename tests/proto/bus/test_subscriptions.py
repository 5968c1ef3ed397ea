"""Subscriptions: in the end exactly what is wanted is subscribed to, however the wishes change meanwhile."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from openguild_proto.bus.subscriptions import Subscriptions


def carry_out(subscriptions: Subscriptions[str]) -> list[str]:
    """What is done, until nothing is left to do."""
    done = []
    while (change := subscriptions.next_change()) is not None:
        if change.ending is None:
            subscriptions.made(change.name, change.name.upper())
            done.append(f"+{change.name}")
        else:
            assert change.ending == change.name.upper()
            done.append(f"-{change.name}")
    return done


def test_a_connection_gets_what_is_wanted_always_and_what_was_wanted_before() -> None:
    subscriptions = Subscriptions[str](["control", "limits"])
    subscriptions.want(["a", "b"])
    subscriptions.reconnected()
    assert carry_out(subscriptions) == ["+control", "+limits", "+a", "+b"]
    subscriptions.reconnected()
    assert carry_out(subscriptions) == ["+control", "+limits", "+a", "+b"]


def test_repeated_wishes_change_nothing() -> None:
    subscriptions = Subscriptions[str]()
    subscriptions.want(["a", "a"])
    assert carry_out(subscriptions) == ["+a"]
    subscriptions.want(["a"])
    subscriptions.unwant(["b"])
    assert carry_out(subscriptions) == []


def test_a_wish_that_is_taken_back_in_time_costs_nothing() -> None:
    subscriptions = Subscriptions[str]()
    subscriptions.want(["a"])
    subscriptions.unwant(["a"])
    assert carry_out(subscriptions) == []


def test_a_subject_that_is_unwanted_while_it_is_subscribed_to_is_given_up() -> None:
    subscriptions = Subscriptions[str]()
    subscriptions.want(["a"])
    change = subscriptions.next_change()
    assert change is not None
    subscriptions.unwant(["a"])
    subscriptions.made("a", "A")
    assert carry_out(subscriptions) == ["-a"]


def test_a_subscription_that_failed_is_made_with_the_next_connection() -> None:
    subscriptions = Subscriptions[str]()
    subscriptions.want(["a", "b"])
    assert subscriptions.next_change() == ("a", None)
    assert carry_out(subscriptions) == ["+b"]
    assert (subscriptions.of(["a", "b"]), subscriptions.all()) == (["B"], ["B"])
    subscriptions.reconnected()
    assert carry_out(subscriptions) == ["+a", "+b"]


@given(st.lists(st.tuples(st.sampled_from(["want", "unwant", "reconnected", "step"]), st.sampled_from("abc"))))
def test_in_the_end_what_is_wanted_is_subscribed_to(steps: list[tuple[str, str]]) -> None:
    subscriptions, wanted, has = Subscriptions[str](), set(), set()
    for step, subject in steps:
        match step:
            case "want":
                subscriptions.want([subject])
                wanted.add(subject)
            case "unwant":
                subscriptions.unwant([subject])
                wanted.discard(subject)
            case "reconnected":
                subscriptions.reconnected()
                has.clear()
            case "step" if (change := subscriptions.next_change()) is not None:
                if change.ending is None:
                    subscriptions.made(change.name, change.name.upper())
                    has.add(change.name)
                else:
                    has.remove(change.name)
    for done in carry_out(subscriptions):
        (has.add if done[0] == "+" else has.remove)(done[1:])
    assert has == wanted
