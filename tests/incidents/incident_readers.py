"""Readers that do not read."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack

from websockets.sync.client import ClientConnection, connect

from tests.incidents.conftest import Incident, Site
from tests.support.chat import User

TEXT = "y" * 4_000


def stopped_reader(user: User, channel: str, sock: socket.socket | None = None) -> ClientConnection:
    """Return a stream whose client does nothing, not even ping, like a suspended machine."""
    url = f"{user.chat.base_url.replace('http', 'ws')}/channels/{channel}/ws"
    return connect(
        url, additional_headers=user.auth, compression=None, proxy=None, ping_interval=None, close_timeout=1, sock=sock
    )


def narrow(port: int) -> socket.socket:
    """Return a connection with a small receive buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.connect(("127.0.0.1", port))
    return sock


def test_a_stopped_reader_among_50_channels(site: Site, walk: Callable[..., Incident]) -> None:
    incident = walk("queue-depth", site.server)
    sam = site.server.chat().user("sam-who-stopped")
    sam.join(site.alice.invite(site.guild))
    channels = [site.alice.channel(site.guild, f"channel-{number}") for number in range(50)]
    with ExitStack() as opened:
        streams = [opened.enter_context(site.alice.stream(channel)) for channel in channels]
        with stopped_reader(sam, channels[17]):
            while site.server.metric("openguild_websocket_queue_depth", channel_id=channels[17]) <= 196:
                for _ in range(10):
                    site.alice.say(channels[17], TEXT)
                    streams[17].recv(timeout=10)
            told = incident.fires("OpenGuildQueueDepthHigh", channel_id=channels[17], instance=site.instance)
            assert told["labels"]["severity"] == "warning", "who is slow pages nobody"
            incident.fires("OpenGuildQueueDepthRaised", channel_id=channels[17])
            said = incident.ask()
            assert channels[17] in said
            assert "sam-who-stopped" in said
            assert not any(channel in said for channel in channels if channel != channels[17])
            assert '"closed": 1' in incident.mend(0, user="sam-who-stopped")
            incident.ends("OpenGuildQueueDepthHigh")
        assert '"value": 10' in incident.mend(1)


def test_a_slow_reader(site: Site, walk: Callable[..., Incident]) -> None:
    incident = walk("messaging-drops", site.server)
    sue = site.server.chat().user("sue-on-a-train")
    sue.join(site.alice.invite(site.guild))
    channel = site.alice.channel(site.guild, "the busy one")
    with sue.stream(channel) as stream:
        while not site.server.metric("openguild_messaging_events_total", outcome="dropped"):
            for _ in range(20):
                site.alice.say(channel, TEXT)
            stream.recv(timeout=10)
        told = incident.fires("OpenGuildMessagesDropped", instance=site.instance)
        assert channel in told["annotations"]["summary"]
        assert told["labels"]["severity"] == "warning"
        said = incident.ask()
        assert "sue-on-a-train" in said.partition("CLOSED FOR SLOWNESS")[2].partition("\n\n")[0]
        incident.ends("OpenGuildMessagesDropped")


def test_a_network_stops(site: Site, walk: Callable[..., Incident]) -> None:
    """All clients of the network stop reading at once."""
    incident = walk("messaging-drops", site.server)
    channel = site.alice.channel(site.guild, "the one of the office")
    clerk = site.server.chat().user("clerk-in-the-office")
    clerk.join(site.alice.invite(site.guild))
    with ExitStack() as opened:
        for _ in range(25):
            opened.enter_context(stopped_reader(clerk, channel, narrow(site.server.port)))
        while site.server.metric("openguild_websocket_lag_closes_total") < 25:
            for _ in range(20):
                site.alice.say(channel, TEXT)
        told = incident.fires("OpenGuildManyReadersLag", instance=site.instance)
        assert told["labels"]["severity"] == "page"
        closed = incident.ask().partition("CLOSED FOR SLOWNESS")[2].partition("\n\n")[0]
        assert closed.count("clerk-in-the-office") >= 5
        assert closed.count("127.0.0.1") == closed.count("clerk-in-the-office")
    incident.ends("OpenGuildManyReadersLag", "OpenGuildMessagesDropped")
