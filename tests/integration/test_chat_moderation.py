"""Moderation in the terminal chat, against a real server."""

from __future__ import annotations

import pytest

from tests.integration.test_chat import Terminal, meet, terminals

__all__ = ["terminals"]
pytestmark = pytest.mark.anyio


async def test_a_moderator_bans_by_name_and_lets_in_again(terminals: tuple[Terminal, Terminal]) -> None:
    alice, bob = terminals
    name = await meet(alice, bob)
    join = alice.text("#typing").partition(": ")[2]
    await alice.write("/bans")
    await alice.sees("nobody is banned", "#typing")
    await alice.write("/ban nobody at all")
    await alice.sees("nobody here has the name 'nobody at all'", "#typing")
    await alice.write(f"/ban @BOB-{name} far too loud")
    await alice.sees(rf"bob-{name} is banned", "#typing")
    await bob.write(join)
    await bob.sees("you are banned from this guild", "#typing")
    await alice.write("/bans")
    await alice.sees(rf"bob-{name} \(far too loud\)", "#typing")
    await alice.write(f"/unban bob-{name}")
    await alice.sees(rf"bob-{name} may join again", "#typing")
    await bob.write(join)
    await bob.sees("no messages")


async def test_a_moderator_changes_a_role_times_out_and_removes(terminals: tuple[Terminal, Terminal]) -> None:
    alice, bob = terminals
    name = await meet(alice, bob)
    join = alice.text("#typing").partition(": ")[2]
    await alice.write(f"/role bob-{name} contributor")
    await alice.sees(rf"bob-{name} is contributor now", "#typing")
    await alice.write(f"/role bob-{name} king")
    await alice.sees("role must be one of: owner, admin", "#typing")
    await alice.write(f"/timeout bob-{name} soon")
    await alice.sees(r"write /timeout NAME MINUTES \[WHY\]", "#typing")
    await alice.write(f"/timeout bob-{name} 10 far too loud")
    await alice.sees(rf"bob-{name} is timed out until", "#typing")
    await bob.write("but why?")
    await bob.sees("you are timed out until", "#typing")
    await alice.write(f"/timeout bob-{name} 0")
    await alice.sees("the time-out has ended", "#typing")
    await bob.write("I see")
    await alice.sees("I see")
    await alice.write(f"/kick bob-{name} enough")
    await alice.sees("removed", "#typing")
    await bob.sees("no channel")
    await bob.write(join)
    await bob.sees("I see")
    await bob.write("/leave")
    await bob.sees("no channel")
