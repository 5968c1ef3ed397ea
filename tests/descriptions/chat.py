"""Two people chat through a client that openapi-python-client has generated. Arguments: the URL of the server, a name."""

from __future__ import annotations

import sys
from typing import TypeVar

from openguild_client import AuthenticatedClient, Client
from openguild_client.api.capabilities import show_capabilities
from openguild_client.api.channels import create_channel
from openguild_client.api.guilds import create_guild
from openguild_client.api.invites import accept_invite, create_invite
from openguild_client.api.logs import list_events
from openguild_client.api.messages import post_message
from openguild_client.api.sessions import login
from openguild_client.api.timeline import list_messages
from openguild_client.api.users import register
from openguild_client.models import ApiError, Credentials, Device, Login, Name, NewChannel, NewInvite, PostMessage
from openguild_client.models.api_error_error import ApiErrorError

T = TypeVar("T")


def good(answer: ApiError | T | None) -> T:
    if answer is None or isinstance(answer, ApiError):
        raise SystemExit(f"refused: {answer}")
    return answer


def enter(url: str, name: str) -> AuthenticatedClient:
    anybody = Client(base_url=url)
    secret = "correct horse"
    good(register.sync(client=anybody, body=Credentials(username=name, password=secret)))
    body = Login(identifier=name, secret=secret, device=Device(device_id="generated"))
    tokens = good(login.sync(client=anybody, body=body))
    return AuthenticatedClient(base_url=url, token=tokens.access_token)


def main(url: str, name: str) -> None:
    assert good(show_capabilities.sync(client=Client(base_url=url))).api_versions == ["v1"]
    alice, bob = enter(url, f"alice-{name}"), enter(url, f"bob-{name}")
    room = Name(name="Tea room")
    guild = good(create_guild.sync(client=alice, body=room, idempotency_key=name))
    assert good(create_guild.sync(client=alice, body=room, idempotency_key=name)).guild_id == guild.guild_id
    channel = good(create_channel.sync(guild.guild_id, client=alice, body=NewChannel(name="general")))
    invite = good(create_invite.sync(guild.guild_id, client=alice, body=NewInvite()))
    assert good(accept_invite.sync(invite.code, client=bob)).role == "member"
    place = channel.channel_id
    first = good(post_message.sync(place, client=alice, body=PostMessage(content="Hello Bob", nonce="1")))
    second = good(
        post_message.sync(place, client=bob, body=PostMessage(content="Hello Alice", reply_to=first.event_id))
    )
    assert [message.content for message in good(list_messages.sync(place, client=alice, limit=1))] == ["Hello Alice"]
    before = good(list_messages.sync(place, client=bob, before=second.sequence))
    assert [message.content for message in before] == ["Hello Bob"]
    assert [event.sequence for event in good(list_events.sync(place, client=bob, since=0))] == [1, 2]
    refused = list_events.sync(place, client=bob, since=99)
    assert isinstance(refused, ApiError)
    assert refused.error is ApiErrorError.INVALID_SINCE
    print("two people have chatted")


if __name__ == "__main__":
    main(*sys.argv[1:])
