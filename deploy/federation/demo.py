"""Beside `make run-federation`: bob of south.test joins a guild of north.test, where alice is, and both write.

Usage: python deploy/federation/demo.py [--port PORT]
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from openguild_runtime.client import Client, MessagePosted, OutcomeUnknown


@asynccontextmanager
async def person(name: str, url: str) -> AsyncIterator[Client]:
    """Open an account of a new name, and log in."""
    async with Client(url) as client:
        unique, password = f"{name} {secrets.token_hex(3)}", secrets.token_urlsafe(18)
        await client.register(unique, password)
        await client.login(unique, password, device_id="demo")
        yield client


async def next_message(client: Client, whose: str) -> None:
    """Print the next message, of whoever wrote it."""
    async with client.gateway() as gateway:
        async for event in gateway:
            if isinstance(event, MessagePosted):
                print(f"  {whose} reads: {event.text}")
                return


async def main(port: int) -> None:
    north, south = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
    async with person("alice", north) as alice, person("bob", south) as bob:
        guild = await alice.create_guild("Two servers")
        channel = await alice.create_channel(guild.guild_id, "general")
        invite = await alice.create_invite(guild.guild_id)
        print(f"alice of north.test has made a guild; her invite is {invite.code}@north.test")
        member = await bob.accept_invite(f"{invite.code}@north.test")
        print(f"bob of south.test has joined as {member.role}")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(next_message, alice, "alice")
            tasks.start_soon(next_message, bob, "bob")
            await anyio.sleep(1)
            await bob.post(channel.channel_id, "hello from the south")
        await alice.post(channel.channel_id, "hello from the north")
        with anyio.fail_after(10):
            while True:
                seen = [event async for event in bob.history(channel.channel_id)]
                if len(seen) == 2:
                    break
                await anyio.sleep(0.05)
        print("both messages are on both servers")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8090, help="of north.test, as make run-federation was given")
    port: int = parser.parse_args().port
    try:
        anyio.run(main, port)
    except OutcomeUnknown as failure:
        sys.exit(f"no answer on 127.0.0.1, port {port} or {port + 1} ({failure}): start `make run-federation` first")
