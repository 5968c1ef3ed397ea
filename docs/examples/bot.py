"""A bot that answers "ping": `python docs/examples/bot.py URL NAME PASSWORD [INVITE]`."""

import sys

from openguild_runtime.client import Client, MessagePosted

url, name, password, *invites = sys.argv[1:]
client = Client(url, session_file=f"{name}.json")


@client.on(MessagePosted)
async def answer(message: MessagePosted) -> None:
    if message.text == "ping" and not message.is_own:
        await message.reply(f"pong, {message.author.username}")


client.run(name, password, invites=invites)
