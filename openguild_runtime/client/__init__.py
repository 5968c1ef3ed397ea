"""A client on anyio: log in, post each message exactly once, follow a channel across restarts.

    async with Client("http://127.0.0.1:8080") as client:
        await client.login("alice", "correct horse battery")
        await client.post(channel_id, "hello")
        async for event in client.subscribe(channel_id):
            print(event.sequence, event.text)

`openguild_proto.client` decides what to retry, when, and from where to resume. A client takes several addresses of one
service and moves to the next when one fails.
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
