"""NATS: its faults, the meaning of its error texts, and the subjects of a server.

The log shows `cause` and `mend` (the fix), `/ready` shows `cause`. Neither contains a host, a user name or text from the server.
"""

from __future__ import annotations

import re

from openguild_proto.bus.faults import Fault
from openguild_proto.bus.topics import Topic
from openguild_proto.diagnosis.certificates import OTHER_NAME, OUT_OF_TIME, distrust_reason

UNREACHABLE = Fault(
    "unreachable", "cannot be reached", "check nats.url, that nats-server runs, name resolution and the network policy"
)
SILENT = Fault(
    "silent",
    "does not answer",
    "check that nats-server is not stalled and that nats.url names its client port (without handshake_first)",
)
GARBAGE = Fault("garbage", "does not speak its protocol", "check that nats.url names a nats-server's client port")
CLOSED = Fault("closed", "closed the connection without a reason", "see the log of nats-server")
REFUSED = Fault(
    "refused",
    "refuses the user, password, token or credentials",
    "check nats.url (in a password, write @ as %40) or nats.credentials_file",
)
CREDENTIALS_FILE = Fault(
    "credentials_file",
    "is not contacted, because nats.credentials_file is unreadable or not a .creds file",
    "replace it with a .creds file that this user can read",
)
CA_FILE = Fault(
    "tls",
    "is not contacted, because nats.ca_file holds no certificates or is unreadable",
    "replace it with a PEM bundle that this user can read",
)
NO_AGREEMENT = Fault(
    "tls",
    "and this server cannot agree on TLS (the certificate, its key, or the version)",
    "see the log of nats-server, and check nats.ca_file and nats.cert_file",
)
CERT_FILE = Fault(
    "tls",
    "is not contacted, because nats.cert_file and nats.key_file are unreadable or do not belong together",
    "replace them with a certificate and its key, as PEM files that this user can read",
)
WANTS_CERTIFICATE = Fault(
    "tls",
    "requires a certificate of this server, or does not trust the one it received",
    "set nats.cert_file and nats.key_file, valid now and from an authority that nats-server trusts",
)
NO_TLS = Fault(
    "tls",
    "offers no TLS, which tls:// or nats.ca_file require; no credentials were sent",
    "give nats-server a tls block, or write nats:// and remove nats.ca_file",
)
SUBSCRIPTIONS = Fault(
    "subscriptions",
    "accepts no more subscriptions: events of some channels arrive only by tail check",
    "raise max_subscriptions of nats-server (of the account or user: subs) above the number of followed channels plus 4",
)
PAYLOAD = Fault(
    "payload",
    "does not accept messages as large as some events",
    "raise max_payload of nats-server to its default, 1MB",
)
SLOW_SUBSCRIBER = Fault(
    "behind", "delivered faster than this server read, and messages were dropped", "check loop stalls and CPU"
)
WAITING = Fault(
    "waiting",
    "is not contacted before the database, because its subjects contain the database's id",
    "see the state of the database",
)
MOVED = Fault("moved", "is reconnected, because the database has a new id", "no action needed, it recovers by itself")
SHUTTING_DOWN = Fault("shutdown", "is shutting down", "no action needed if it or another server of nats.url comes back")

# Substrings of nats-server's error texts (its errors.go) in lower case. The first match counts.
_ERROR_TEXTS = (
    ("maximum subscriptions", SUBSCRIPTIONS),
    ("maximum payload", PAYLOAD),
    (
        "expired",
        Fault("expired", "no longer accepts the credentials: they have expired", "renew nats.credentials_file"),
    ),
    (
        "revoked",
        Fault("expired", "no longer accepts the credentials: they were revoked", "renew nats.credentials_file"),
    ),
    (
        "timeout",
        Fault("late", "waited too long for the credentials", "check the load of both, or raise authorization.timeout"),
    ),
    (
        "connections exceeded",
        Fault(
            "connections", "accepts no more connections", "raise max_connections (of the account: conn) of nats-server"
        ),
    ),
    ("throttling", Fault("connections", "accepts no more connections at the moment", "no action needed if it passes")),
    ("authorization", REFUSED),
    ("authentication", REFUSED),
    ("tls", Fault("tls", "requires TLS", "write tls:// in nats.url, and set nats.ca_file")),
    (
        "slow consumer",
        Fault(
            "slow",
            "closed the connection because this server read too slowly",
            "check loop stalls, or raise max_pending",
        ),
    ),
    ("stale", SILENT),
    ("shutdown", SHUTTING_DOWN),
    ("port", Fault("garbage", "is contacted on a port for routes or leaf nodes", "name the client port in nats.url")),
)
_UNKNOWN_ERROR = Fault("closed", "closed the connection with an error", "see the log of nats-server")


# OpenSSL's names for the alerts of a server that rejects a client's certificate (RFC 8446 6.2)
_CERTIFICATE_ALERTS = (
    "CERTIFICATE_REQUIRED",
    "BAD_CERTIFICATE",
    "CERTIFICATE_EXPIRED",
    "UNKNOWN_CA",
    "HANDSHAKE_FAILURE",
)

_ERROR_LINE = re.compile(rb"-ERR\s+'([^'\r\n]{1,200})'")
_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"')


def fault_from_error_text(text: str) -> Fault:
    """Return the fault for the text of an -ERR."""
    lower = text.lower()
    return next((fault for part, fault in _ERROR_TEXTS if part in lower), _UNKNOWN_ERROR)


def tls_fault(reason: str | None, verify_code: int | None) -> Fault:
    """Return the fault for OpenSSL's reason. `verify_code`: why the server's certificate is not trusted, or None."""
    if verify_code is not None:
        why = distrust_reason(verify_code) or f"for a reason that only OpenSSL knows (verification code {verify_code})"
        if verify_code in OTHER_NAME:
            mend = "use a host name in nats.url that the certificate contains"
        else:
            mend = "renew it" if verify_code in OUT_OF_TIME else "check nats.ca_file"
        return Fault("tls", f"has a certificate that is not trusted: {why}", mend)
    alert = (reason or "").rpartition("_ALERT_")[2]
    return WANTS_CERTIFICATE if alert in _CERTIFICATE_ALERTS else NO_AGREEMENT


def denied_fault(action: str, pattern: str, allowed: str) -> Fault:
    """Return the fault for a denied subject. `action`: publish or subscribe. `allowed`: the pattern to permit."""
    return Fault(
        "denied",
        f"does not permit {action} on {pattern}",
        f"allow this user of nats-server to publish and subscribe on {allowed}",
    )


def fault_from_bytes(data: bytes) -> Fault | None:
    """Return the fault for the first -ERR line in `data`, or None."""
    found = _ERROR_LINE.search(data)
    return None if found is None else fault_from_error_text(found[1].decode("ascii", "replace"))


def parse_denial(text: str) -> tuple[str, str] | None:
    """Return the action (publish or subscribe) and the subject that an error text denies, or None. `text`: in lower case."""
    found = _DENIED.search(text)
    return None if found is None else ("publish" if found[1] == "publish" else "subscribe", found[2])


class Subjects:
    """The subjects: `openguild.<server>.<database>.channel.<channel id>`, and `openguild.<server>.<database>.<topic>` per topic.

    The names of subscriptions are without the part before `channel` or the topic, which `join` sets. `probe_channel`: an id
    whose subject only this replica uses.
    """

    def __init__(self, server_name: str, probe_channel: str = "") -> None:
        self._server = f"openguild.{re.sub(r'[^A-Za-z0-9_-]', '_', server_name)}"
        self.names = {**{topic.value: topic.value for topic in Topic}, "channel": self.channel_name(probe_channel)}
        self.join("")

    def join(self, database: str) -> None:
        """Use the subjects of this database."""
        self.database = database
        self._prefix = f"{self._server}.{database}"
        self.topics = {topic: f"{self._prefix}.{topic.value}" for topic in Topic}
        self.probes = {kind: f"{self._prefix}.{name}" for kind, name in self.names.items()}

    def channel(self, channel_id: str) -> str:
        """Return the subject of a channel."""
        return f"{self._prefix}.channel.{channel_id}"

    def channel_name(self, channel_id: str) -> str:
        """Return the name of the subscription to a channel."""
        return f"channel.{channel_id}"

    def subscription(self, name: str) -> str:
        """Return the subject to subscribe to. Control messages of all databases are included, to detect other databases."""
        return f"{self._server}.*.{name}" if name == Topic.CONTROL.value else f"{self._prefix}.{name}"

    def split(self, subject: str) -> tuple[str, str, str]:
        """Return the database of a subject, its kind (channel, or the value of a topic), and its channel id or ""."""
        database, _, name = subject[len(self._server) + 1 :].partition(".")
        kind, _, channel_id = name.partition(".")
        return database, kind, channel_id

    def denied(self, action: str, subject: str) -> tuple[str, Fault]:
        """Return a key and the fault for a denied subject, given in lower case. All channels are one kind; the fault names none."""
        _, kind, channel_id = self.split(subject)
        pattern = f"{self._server}.*.{kind}{'.*' if channel_id else ''}"
        return f"{action} {kind}", denied_fault(action, pattern, f"{self._server}.>")
