"""A bot on one blocking socket that answers "ping": `python docs/examples/socket_bot.py HOST:PORT NAME PASSWORD`."""

import json
import random
import secrets
import socket
import sys
from contextlib import suppress
from time import monotonic, sleep

from openguild_proto import client as core
from openguild_proto.gateway import client_events as told
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import Post

authority, name, password = sys.argv[1:]
server = authority.rsplit(":", 1)
login = {"identifier": name, "secret": password, "device": {"device_id": "socket_bot"}}


def request(method: str, path: str, *headers: tuple[str, str], body: bytes = b"") -> core.ClientResponse:
    """Send a request until there is an answer. If the server closes the idle gateway meanwhile, the bot reconnects."""
    backoff = core.Backoff(random.random, base_secs=1.0)
    while True:
        http, advised = core.HttpClient(authority), None
        with suppress(OSError, core.ConnectionBroken), socket.create_connection(server, timeout=10) as sock:
            sock.sendall(http.send_request(method, f"/client/v1{path}", headers, body))
            while (response := http.receive_data(sock.recv(65_536))) is None:
                pass
            if response.status < 400:
                return response
            if not core.is_temporary(response.status):
                raise core.api_error(response)
            advised = core.api_error(response).retry_after_secs
        sleep(backoff.next_delay(advised))


def new_tokens(path: str, body: object) -> dict[str, str]:
    data = json.dumps(body).encode()
    return json.loads(request("POST", path, ("content-type", "application/json"), body=data).body)


tokens, user_id = new_tokens("/sessions/login", login), ""
client = core.GatewayClient(Encoding.JSON, jitter=random.random, random_bytes=secrets.token_bytes)
link, logs, sock = core.GatewayLink(client), core.AccountLogs(client), socket.socket()  # `Connect` opens the first one
client.start(tokens["access_token"], monotonic())
while True:
    while (event := client.next_event()) is not None:
        match event:
            case told.Connect():
                sock.close()
                try:
                    sock = socket.create_connection(server, timeout=10)
                    link.connect(authority, monotonic())
                except OSError as fault:
                    link.failed(str(fault), monotonic())
            case told.Disconnect(code=code):
                with suppress(OSError):
                    sock.sendall(link.disconnect(code))
            case told.TokenNeeded():  # a login would end the session, and with it this gateway
                tokens = new_tokens("/sessions/refresh", {"refresh_token": tokens["refresh_token"]})
                client.set_token(tokens["access_token"], monotonic())
            case told.Opened(ready=ready):
                user_id = ready.user.user_id
                logs.opened(ready)
            case told.Followed():
                logs.followed(event)
            case told.LogGone(log=log) | told.FollowRefused(log=log) if not client.follows(log):
                logs.gone(log)
            case told.Delivered():
                logs.delivered(event)
                said = json.loads(event.wire)
                kind, text = said["event_type"], said["content"].get("content")
                if (kind, text) == ("message", "ping") and said["sender"] != user_id:
                    key = said["event_id"]  # with the same key a second answer to this message has no effect
                    client.send(Post(0, said["room_id"], content="pong", key=key, reply_to=key))
            case told.Ended(reason=reason):
                sys.exit(reason)
    bearer = "authorization", f"Bearer {tokens['access_token']}"
    if logs.wants_guilds():  # only the first page of each list, 200 entries
        logs.joined(guild["guild_id"] for guild in json.loads(request("GET", "/guilds?limit=200", bearer).body))
    while (guild_id := logs.next_listing()) is not None:
        with suppress(core.NotFound):  # the bot is not a member any more
            page = request("GET", f"/guilds/{guild_id}/channels?limit=200", bearer)
            channels = (channel["channel_id"] for channel in json.loads(page.body))
            logs.listed(guild_id, int(page.header("x-openguild-head") or 0), channels)
    wait_secs = max(0.001, (client.next_deadline() or monotonic() + 10) - monotonic())
    try:
        if link.is_connected:
            sock.settimeout(10)
            sock.sendall(link.data_to_send())
            sock.settimeout(wait_secs)
            with suppress(TimeoutError):
                link.receive_data(sock.recv(65_536), monotonic())
        else:
            sleep(wait_secs)
    except OSError as fault:
        link.failed(str(fault), monotonic())
    client.handle_deadline(monotonic())  # early calls do nothing
