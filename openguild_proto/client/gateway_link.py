"""A gateway client on byte streams: `GatewayClient` with its WebSocket, without I/O.

For every `Connect` of the client call `connect`, then send `data_to_send()` after every call and feed `receive_data`. After a
`Disconnect` send the remaining bytes and close the transport. Use `client` for everything else.
"""

from __future__ import annotations

from openguild_proto.client import websocket
from openguild_proto.client.errors import api_error
from openguild_proto.client.proxy_answers import proxy_answer_reason
from openguild_proto.client.retry_advice import is_temporary
from openguild_proto.client.websocket import ClientWebSocket, WebSocketEvent
from openguild_proto.gateway.client import GatewayClient
from openguild_proto.gateway.close_codes import GatewayClose
from openguild_proto.gateway.encoding import Encoding

TARGET = "/client/v1/gateway"


class GatewayLink:
    """Connects `client` to one transport at a time."""

    def __init__(self, client: GatewayClient) -> None:
        self.client = client
        self._ws: ClientWebSocket | None = None
        self._open = False

    @property
    def is_connected(self) -> bool:
        """Whether a connection is opening or open. If not, close the transport."""
        return self._ws is not None

    def connect(self, host: str, now: float) -> None:
        """Begin the handshake on a new transport. `host`: the value of the Host header, such as `chat.example.org:8080`.

        Raises LocalProtocolError for a host that cannot be sent.
        """
        self._ws, self._open = ClientWebSocket(host, TARGET, subprotocols=(self.client.encoding.value,)), False

    def data_to_send(self) -> bytes:
        """Return and clear the bytes queued for the transport."""
        if self._ws is None:
            return b""
        if self._open:
            for message in self.client.messages_to_send():
                self._ws.send(message)
        return self._ws.data_to_send()

    def receive_data(self, data: bytes, now: float) -> None:
        """Feed bytes from the server, b"" for the end of the transport."""
        ws = self._ws
        if ws is None:
            return
        for event in ws.receive_data(data) if data else ws.receive_eof():
            self._take(event, now)
            if self._ws is not ws:
                return

    def failed(self, reason: str, now: float) -> None:
        """Report that the transport could not be opened, or failed."""
        self._ws = None
        self.client.disconnected(None, reason, now)

    def disconnect(self, code: int) -> bytes:
        """Close the WebSocket, for a `Disconnect`. Return the last bytes to send. Raises LocalProtocolError for a bad code."""
        ws = self._ws
        if ws is None:
            return b""
        ws.close(code)
        self._ws = None
        return ws.data_to_send()

    def _take(self, event: WebSocketEvent, now: float) -> None:
        match event:
            case websocket.Accepted(subprotocol=subprotocol):
                self._open = True
                self.client.connected(now)
                if (subprotocol or Encoding.JSON.value) != self.client.encoding.value:
                    self._end(GatewayClose.PROTOCOL_ERROR, "the server does not support this subprotocol", now)
            case websocket.Message(payload=payload):
                self.client.received(payload, now)
            case websocket.Closed(code=code, reason=reason):
                self._end(code, reason, now)
            case websocket.Broken(reason=reason):
                self._end(None, reason, now)
            case websocket.Refused(response=response):
                foreign = proxy_answer_reason(response)
                temporary = foreign is not None or response.status < 400 or is_temporary(response.status)
                self._ws = None
                if temporary:
                    self.client.disconnected(None, foreign or f"HTTP {response.status}", now)
                else:
                    refusal = api_error(response)
                    self.client.refused(response.status, refusal.reason, now, refusal.code)

    def _end(self, code: int | None, reason: str, now: float) -> None:
        self._ws = None
        self.client.disconnected(code, reason, now)
