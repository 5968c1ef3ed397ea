"""Subscriptions: in the end exactly what is wanted is subscribed to, however the wishes change meanwhile."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from openguild_proto.bus.subscriptions import Subscriptions


def perform_actions(subscriptions: Subscriptions[str]) -> list[str]:
    """What is done, until nothing is left to do."""
    done = []
    while (change := subscriptions.next_change()) is not None:
        if change.ending is None:
            subscriptions.subscribed(change.name, change.name.upper())
            done.append(f"+{change.name}")
        else:
            assert change.ending == change.name.upper()
            done.append(f"-{change.name}")
    return done


def test_a_connection_gets_what_is_wanted_always_and_what_was_wanted_before() -> None:
    subscriptions = Subscriptions[str](["control", "limits"])
    subscriptions.add(["a", "b"])
    subscriptions.reconnected()
    assert perform_actions(subscriptions) == ["+control", "+limits", "+a", "+b"]
    subscriptions.reconnected()
    assert perform_actions(subscriptions) == ["+control", "+limits", "+a", "+b"]


def test_repeated_wishes_change_nothing() -> None:
    subscriptions = Subscriptions[str]()
    subscriptions.add(["a", "a"])
    assert perform_actions(subscriptions) == ["+a"]
    subscriptions.add(["a"])
    subscriptions.remove(["b"])
    assert perform_actions(subscriptions) == []


def test_a_wish_that_is_taken_back_in_time_costs_nothing() -> None:
    subscriptions = Subscriptions[str]()
    subscriptions.add(["a"])
    subscriptions.remove(["a"])
    assert perform_actions(subscriptions) == []


def test_a_subject_that_is_unwanted_while_it_is_subscribed_to_is_given_up() -> None:
    subscriptions = Subscriptions[str]()
    subscriptions.add(["a"])
    change = subscriptions.next_change()
    assert change is not None
    subscriptions.remove(["a"])
    subscriptions.subscribed("a", "A")
    assert perform_actions(subscriptions) == ["-a"]


def test_a_subscription_that_failed_is_made_with_the_next_connection() -> None:
    subscriptions = Subscriptions[str]()
    subscriptions.add(["a", "b"])
    assert subscriptions.next_change() == ("a", None)
    assert perform_actions(subscriptions) == ["+b"]
    assert (subscriptions.of(["a", "b"]), subscriptions.all()) == (["B"], ["B"])
    subscriptions.reconnected()
    assert perform_actions(subscriptions) == ["+a", "+b"]


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "reconnected", "step"]), st.sampled_from("abc"))))
def test_in_the_end_what_is_wanted_is_subscribed_to(steps: list[tuple[str, str]]) -> None:
    subscriptions, wanted, has = Subscriptions[str](), set(), set()
    for step, subject in steps:
        match step:
            case "add":
                subscriptions.add([subject])
                wanted.add(subject)
            case "remove":
                subscriptions.remove([subject])
                wanted.discard(subject)
            case "reconnected":
                subscriptions.reconnected()
                has.clear()
            case "step" if (change := subscriptions.next_change()) is not None:
                if change.ending is None:
                    subscriptions.subscribed(change.name, change.name.upper())
                    has.add(change.name)
                else:
                    has.remove(change.name)
    for done in perform_actions(subscriptions):
        (has.add if done[0] == "+" else has.remove)(done[1:])
    assert has == wanted
