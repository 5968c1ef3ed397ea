"""Two users chat through one or several replicas: `python docs/examples/client_chat.py URL...`."""

from __future__ import annotations

import sys

import anyio

from openguild_runtime.client import ApiError, Client

PASSWORD = "correct horse battery"


async def entered(urls: tuple[str, ...], name: str) -> Client:
    """Return a client that is logged in; register the account if it does not exist."""
    client = Client(urls)
    try:
        await client.register(name, PASSWORD)
    except ApiError as refusal:
        if refusal.status != 409:  # taken by an earlier run of this example
            raise
    await client.login(name, PASSWORD)
    return client


async def main(urls: tuple[str, ...]) -> None:
    alice, bob = await entered(urls, "alice.example"), await entered(urls, "bob.example")
    async with alice, bob:
        guild = (await alice.create_guild("Tea room")).guild_id
        channel = (await alice.create_channel(guild, "general")).channel_id
        invite = await alice.create_invite(guild, max_uses=1)
        await bob.accept_invite(invite.code)

        async with bob.subscribe(channel, since=0) as events:
            for text in ("Hello Bob", "are you there?", "bye"):
                posted = await alice.post(channel, text)
                print("posted", posted.sequence)
            async for event in events:
                print("bob reads", event.sequence, event.text)
                if event.text == "bye":
                    break


if __name__ == "__main__":
    anyio.run(main, tuple(sys.argv[1:]) or ("http://127.0.0.1:8080",))
