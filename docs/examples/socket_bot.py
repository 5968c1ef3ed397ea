"""A bot on one blocking socket that answers "ping": `python docs/examples/socket_bot.py HOST:PORT NAME PASSWORD`."""

import json
import random
import secrets
import socket
import sys
from contextlib import suppress
from hashlib import sha256
from time import monotonic, sleep

from openguild_proto.client import AccountLogs, ClientResponse, GatewayClient, GatewayLink, HttpClient, api_error
from openguild_proto.gateway import client_events as told
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import Post

authority, name, password = sys.argv[1:]


def connect() -> socket.socket:
    return socket.create_connection(authority.rsplit(":", 1), timeout=10)


def request(method: str, path: str, *headers: tuple[str, str], body: bytes = b"") -> ClientResponse:
    http = HttpClient(authority)
    with connect() as sock:
        sock.sendall(http.send_request(method, f"/client/v1{path}", headers, body))
        while (response := http.receive_data(sock.recv(65_536))) is None:
            pass
    if response.status >= 400:
        raise api_error(response)
    return response


def log_in() -> str:
    login = {"identifier": name, "secret": password, "device": {"device_id": "socket_bot"}}
    response = request("POST", "/sessions/login", ("content-type", "application/json"), body=json.dumps(login).encode())
    return json.loads(response.body)["access_token"]


def answer(event: told.Delivered, user_id: str) -> None:
    message = json.loads(event.wire)
    if message["event_type"] == "message" and message["sender"] != user_id and message["content"]["content"] == "ping":
        key = sha256(message["event_id"].encode()).hexdigest()  # a second answer to the same message changes nothing
        client.send(Post(0, message["room_id"], content="pong", key=key, reply_to=message["event_id"]))


token, user_id = log_in(), ""
client = GatewayClient(Encoding.JSON, jitter=random.random, random_bytes=secrets.token_bytes)
link, logs, sock = GatewayLink(client), AccountLogs(client), socket.socket()  # `Connect` opens the first one
client.start(token, monotonic())
while True:
    while (event := client.next_event()) is not None:
        match event:
            case told.Connect():
                sock.close()
                try:
                    sock = connect()
                    link.connect(authority, monotonic())
                except OSError as fault:
                    link.failed(str(fault), monotonic())
            case told.Disconnect(code=code):
                with suppress(OSError):
                    sock.sendall(link.disconnect(code))
            case told.TokenNeeded():
                token = log_in()
                client.set_token(token, monotonic())
            case told.Opened(ready=ready):
                user_id = ready.user.user_id
                logs.opened(ready)
            case told.Followed():
                logs.followed(event)
            case told.LogGone(log=log) | told.FollowRefused(log=log) if not client.follows(log):
                logs.gone(log)
            case told.Delivered():
                logs.delivered(event)
                answer(event, user_id)
            case told.Ended(reason=reason):
                sys.exit(reason)
    bearer = "authorization", f"Bearer {token}"
    if logs.wants_guilds():  # up to 200 of each list: the first page
        logs.joined(guild["guild_id"] for guild in json.loads(request("GET", "/guilds?limit=200", bearer).body))
    while (guild_id := logs.next_listing()) is not None:
        page = request("GET", f"/guilds/{guild_id}/channels?limit=200", bearer)
        head = int(page.header("x-openguild-head") or 0)
        logs.listed(guild_id, head, (channel["channel_id"] for channel in json.loads(page.body)))
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
