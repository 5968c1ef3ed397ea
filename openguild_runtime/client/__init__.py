"""A client on anyio: log in, post without doubles, follow a channel across restarts.

    async with Client("http://127.0.0.1:8080") as client:
        await client.login("alice", "correct horse battery")
        await client.post(channel_id, "hello")
        async for event in client.subscribe(channel_id):
            print(event.sequence, event.text)

Every decision (what to retry, when, from where to resume) is `openguild_proto.client`'s. Several addresses of one
service may be given: the next one is tried when one fails.
"""

from openguild_proto.client import ApiError, Session
from openguild_runtime.client.session import Client, Posted
from openguild_runtime.client.subscription import ChannelEvent, StreamEnded, Subscription
from openguild_runtime.client.transport import Address, OutcomeUnknown

__all__ = [
    "Address",
    "ApiError",
    "ChannelEvent",
    "Client",
    "OutcomeUnknown",
    "Posted",
    "Session",
    "StreamEnded",
    "Subscription",
]
