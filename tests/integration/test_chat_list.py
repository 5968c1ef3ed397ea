"""The list of channels in the terminal chat."""

from __future__ import annotations

import pytest
from textual.timer import Timer
from textual.widgets import Tree
from textual.widgets.tree import TreeNode

from tests.integration.test_chat import Terminal, meet, terminals
from tests.support.waiting import eventually

__all__ = ["terminals"]
pytestmark = pytest.mark.anyio


async def test_an_event_draws_its_line_of_the_list_only(terminals: tuple[Terminal, Terminal]) -> None:
    """With hundreds of channels, drawing the whole list would block the keyboard."""
    alice, bob = terminals
    await meet(alice, bob)
    [guild_id] = alice.app.screen.model.guilds
    for name in ("green", "black"):
        await alice.app.client.create_channel(guild_id, name)
    tree = bob.app.screen.query_one("#channels", Tree)

    def lines() -> list[TreeNode[str]]:
        return [node for guild in tree.root.children for node in guild.children]

    await eventually(lambda: [str(node.label) for node in lines()] == ["# general", "# green", "# black"])
    drawn = lines()
    await alice.app.client.post(drawn[2].data, "tea")
    await eventually(lambda: [str(node.label) for node in lines()] == ["# general", "# green", "# black (1)"])
    assert all(now is before for now, before in zip(lines(), drawn, strict=True))
    tree.move_cursor(drawn[2])
    await bob.pilot.press("ctrl+g", "enter")
    await bob.sees("1 alice-.* tea")


async def test_a_stall_of_the_process_costs_no_redraw(
    terminals: tuple[Terminal, Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timer of Textual that is to fire once does not fire at all if the process stalls between its first two lines."""
    run = Timer._run

    async def stalled(timer: Timer) -> None:
        if timer._repeat != 0:
            await run(timer)

    alice, bob = terminals
    await meet(alice, bob)
    monkeypatch.setattr(Timer, "_run", stalled)
    [guild_id] = alice.app.screen.model.guilds
    tree = bob.app.screen.query_one("#channels", Tree)
    for name in ("green", "black"):
        await alice.app.client.create_channel(guild_id, name)
        await eventually(lambda name=name: str(tree.root.children[0].children[-1].label) == f"# {name}")
