"""Every bound of the protocol core that is not configured, its unit in its name and its source beside it.

`Limits` holds what an embedder may tune of one connection, with those keys of the configuration that bound one
(settings/sections.py); the module constants are fixed by docs/PROTOCOL.md.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from openguild_proto.settings.sections import HttpLimits, MessagingSettings, WebSocketLimits

# Names, texts and pages
MAX_NAME_CHARS = 64  # PROTOCOL 1.3: guild, channel and user names, Unicode scalar values
MAX_RAW_NAME_CHARS = 4 * MAX_NAME_CHARS  # UAX 15: NFKC makes one character of four at most, as of the parts of U+1F82
MAX_MARKS = 4  # UTS 39 5.4: nonspacing marks on one letter of a name
MAX_MESSAGE_CHARS = 4_000  # PROTOCOL 1.3.6
MAX_MESSAGE_VERSIONS = 100  # PROTOCOL 6.6.4: the first text and 99 edits
MAX_MESSAGE_EMOJI = 20  # PROTOCOL 6.6.5: different ones among a message's reactions
MAX_EMOJI_CHARS = 64  # PROTOCOL 6.6.5: a family of four with skin tones has 11, a flag of tags 14
MAX_CHANNEL_PINS = 250  # PROTOCOL 6.6.6
MAX_REASON_CHARS = 512  # PROTOCOL 6.6.3: why a moderator takes a message back
MAX_SHOWN_REACTORS = 10  # PROTOCOL 7.8.3: named beside the count of one emoji
MAX_PREVIEW_CHARS = 200  # PROTOCOL 7.8.3: of a message that is replied to
MIN_PASSWORD_CHARS = 8  # PROTOCOL 4.1.2
MAX_PASSWORD_CHARS = 1_024  # PROTOCOL 4.1.2; bounds the work of Argon2id
MAX_NONCE_CHARS = 64  # PROTOCOL 7.5.1, visible ASCII
MAX_DEVICE_FIELD_CHARS = 256  # ours: device id, device name, user agent as stored
DEFAULT_PAGE_EVENTS = 50  # PROTOCOL 7.6.2
MAX_PAGE_EVENTS = 200  # PROTOCOL 7.6.2
MAX_PAGE_BYTES = 1024 * 1024  # ours: of a page's events, at least one event; 200 of 4,000 characters can be 4.9 MB
MAX_PAGE_LINES = 1_000  # PROTOCOL 3.5.1: guilds, channels, members; also the default
MAX_JSON_DEPTH = 128  # PROTOCOL 3.3.2
MAX_BODY_BYTES = 2 * 1024 * 1024  # PROTOCOL 2.3.2: of any request; what a route takes is less
MAX_SMALL_BODY_BYTES = 32_768  # ours: the largest login, 1,024 and 3 x 256 characters as \u pairs, has 21,504
MAX_MESSAGE_BODY_BYTES = 65_536  # ours: 4,000 characters as \u pairs have 48,000
MAX_SAFE_INTEGER = 2**53 - 1  # PROTOCOL 6.2.4: numbers in content
MAX_TIME_MS = 253_402_300_799_999  # the last one of the year 9999, where RFC 3339 and datetime end
MAX_SEQUENCE = 2**63 - 1  # ours: what a store keeps a sequence in, PostgreSQL's bigint
MAX_REQUEST_ID_CHARS = 128  # PROTOCOL 2.5.2
MAX_METHOD_BYTES = 32  # ours: the longest method that IANA registers, UPDATEREDIRECTREF, has 17
MAX_WINDOW_KEYS = 100_000  # ours: remembered by one rate limit; the one seen longest ago gives way
MAX_ACCOUNT_ADDRESSES = 10  # ours: addresses' worth of login attempts on one account in a window, from all together
MAX_REPEATS_PER_MESSAGE = 10  # ours: times the limits of messages, posts may be asked for again for nothing
MAX_INVITE_USES = 1_000_000  # ours
MAX_INVITE_TTL_SECS = 365 * 86_400  # ours

# Sessions
MAX_DEVICES_PER_USER = 100  # ours: with a living session; of more the one seen longest ago is signed out
MAX_TOKEN_CHARS = 2_048  # ours: an access token, checked before any work
MAX_CACHED_TOKENS = 65_536  # ours: verified ones; the least recently used is forgotten, and checked again when it comes
MAX_REVOKED_SESSIONS = 262_144  # ours: remembered while a token of theirs could live

MAX_SESSIONS_PER_RECORD = 1_000  # ours: of one control record; 39 KB of JSON, far below NATS' 1 MiB
MAX_CLOCK_DRIFT_SECS = 0.5  # ours: by which a stream may end apart from its token when the wall clock moves

# Fan-out
DEFAULT_CAPACITY_EVENTS = MessagingSettings.queue_capacity  # of a ring that is given no other
DEFAULT_CAPACITY_BYTES = 1 << 20  # ours: 4,000 characters can be 24 KB of JSON
STRETCHED_RINGS = (
    16  # ours: a ring holds as much more while a burst leaves it, one release of what waited behind a hole
)
MAX_RING_INDEX = 1 << 62  # ours: far beyond any sequence, and room to count on in the compiled ring's 64 bits
MAX_HELD_ITEMS = 4_096  # ours: behind a hole of one channel; what is not kept is read from the log
MAX_HELD_BYTES = 4 * 1024 * 1024  # ours: the same, as in a ring

# Batches for the store, and what waits for them
MAX_BATCH_ITEMS = 256  # ours: appends of one transaction, questions of one query
MAX_BATCH_BYTES = 2 * 1024 * 1024  # ours: of appends; the one that reaches it is the last
MAX_QUEUE_EVENTS = 8_192  # ours: appends that wait; divided among the queues
MAX_QUEUE_BYTES = 32 * 1024 * 1024  # ours: the same
APPEND_OVERHEAD_BYTES = 512  # of a waiting append, beside its two texts
BLOCKED_SECS = 1.0  # ours: a locked channel's posts are refused; what an `overloaded` client is told to wait
MAX_BLOCKED_CHANNELS = 1_024  # ours: remembered; a forgotten one costs one batch its patience again
LOCK_TIMEOUT_MS = 500  # ours: another replica's commit takes milliseconds, some hundred on a disk that stalls
PROBE_LOCK_TIMEOUT_MS = 50  # ours: for a channel that is already known, or likely, to be locked
RETRY_LIMIT_SECS = 1.0  # ours: for all parts of a batch together: the whole table may be locked
MAX_WAITING_QUESTIONS = 20_000  # ours: about access to channels
QUESTION_BYTES = 512  # two identifiers, a future, their places

# Turns of a loop
TURN_SECS = 0.002  # ours: what one kind of work for many sockets takes of one turn; all together stay below 0.01
FEW_AT_ONCE = 32  # ours: so many are no matter of time
MAX_WAITING_WORKS = 64  # ours: that wait for their turn; beyond it the oldest is finished at once

# Following a log
GAP_GRACE_SECS = 0.05  # ours: commits of one batch answer in any order, and the wire may overtake them
ROOM_LOOK_SECS = 0.02  # ours: how often a crowded channel is looked at; a burst to 15,000 readers leaves in about 0.2
TAIL_CHECK_SECS = 2.0  # ours: within which a lost last event is found, jitter aside
CATCH_UP_SECS = 1.0  # ours: between two checks of everything, however often the wire comes back
PAGE_EVENTS = 200  # ours: read at once from a channel's log
PAGE_RECORDS = 500  # ours: read at once from the control log
MAX_CHANNELS_AT_ONCE = 200  # ours: opened or let go together; 5 to 20 ms of a loop
KEPT_PAGE_BYTES = 2 * 1024 * 1024  # ours: pages of the log kept for replays, some 7,000 events
PIECE_BYTES = 65_536  # ours: of frames handed to a socket at once

# Connections of a process
MIN_CONNECTIONS = 8  # ours: however few descriptors there are
SHED_LOOKS = 256  # ours: connections looked at for one that can make room
HTTP_SHARE = 8  # ours: one of so many connections is kept from streams
SPARE_CONNECTIONS = 10_000  # ours: HTTP connections beside the streams, at most
SPARE_DESCRIPTORS = 4  # ours: kept open, to be closed when the others have run out
MAX_DESCRIPTOR_MARGIN = 256  # ours: left for what nobody has counted
DESCRIPTORS_SHORT_SECS = 5.0  # ours: after the last failure

# Replicas
MAX_REPLICAS = 1_000  # ours: whose counts are taken into a shared limit
WAVE_SECS = 0.1  # ours: between two waves of a drain
MIN_WAVE_SOCKETS = 50  # ours: few sockets need no waves
MAX_RECONNECTS_PER_SEC = 1_000  # ours: what the other replicas take without their other clients noticing
MIN_SPREAD_MS = 100  # ours: over which the clients of a drained replica come back
MAX_SPREAD_MS = 10_000  # ours: nobody is sent away for longer

CLOCK_DRIFT = 200e-6  # ours: seconds a second, twice what quartz clocks may do, between two readings of the store's

# What a client is told to wait before it asks again (Retry-After)
OVERLOADED_RETRY_SECS = 1  # ours
UNAVAILABLE_RETRY_SECS = 2  # ours: the database is away
CONNECTION_LIMIT_RETRY_SECS = 5  # ours: a place is free when a stream has ended

# WebSocket (RFC 6455)
MAX_CONTROL_PAYLOAD_BYTES = 125  # RFC 6455 5.5
MAX_CLOSE_REASON_BYTES = 123  # RFC 6455 5.5.1: 125 less the code

# The client's side
MAX_RESPONSE_HEAD_BYTES = 65_536  # ours
MAX_RESPONSE_BODY_BYTES = 32 * 1024 * 1024  # ours: a page of 200 events of 4,000 characters is far below
MAX_INTERIM_RESPONSES = 16  # ours: 1xx before one answer
MAX_REFUSAL_CHARS = 65_536  # ours: of the body in place of an upgrade
MAX_STREAM_MESSAGE_CHARS = 4 * 1024 * 1024  # ours: of one message on a stream
CLIENT_HANDSHAKE_SECS = 10.0  # ours: from the connection to the 101
CLIENT_SILENCE_SECS = 60.0  # the server pings every 25 s (PROTOCOL 8.6): two of them have not come
REFRESH_AHEAD_SECS = 60.0  # ours: before the token ends, so that no request meets the end; a tenth of a shorter life
BACKOFF_BASE_SECS = 0.25  # ours
BACKOFF_MAX_SECS = 15.0  # ours


# What slow readers may keep
MAX_UNSENT_RESPONSE_BYTES = 256 * 1024 * 1024  # ours: of all HTTP answers of a process that wait for their readers


@dataclass(frozen=True, kw_only=True)
class Limits(HttpLimits, WebSocketLimits):
    """Bounds of one connection. All are checked before the work they bound is done."""

    max_target_bytes: int = 8_192  # RFC 9112 3: at least 8000 octets
    max_head_bytes: int = 32_768  # request line and headers together
    max_header_count: int = 100
    max_header_line_bytes: int = 8_192
    max_body_bytes: int = MAX_BODY_BYTES
    unquestioned_body_bytes: int = MAX_SMALL_BODY_BYTES  # a longer one is held to what its route takes
    max_chunk_line_bytes: int = 256  # chunk size and extensions, RFC 9112 7.1.1
    max_body_chunks: int = 4_096  # ours: chunks cost work that their bytes do not show
    max_pipelined_bytes: int = 65_536  # kept unparsed while a request is being answered
    max_message_fragments: int = 1_024  # unfinished message, ours
    max_outbox_bytes: int = 1_048_576  # replies waiting for one peer, beyond it the connection is closed
    frame_timeout_secs: float = 30.0  # ours: a WebSocket frame's first byte to its last, as long as a body has
    min_write_bytes_per_sec: int = 8_192  # ours: at which a waiting HTTP answer must leave, in the long run
    close_timeout_secs: float = 5.0  # our close frame to the peer's
    linger_timeout_secs: float = 2.0  # ours: our end of the stream to the peer's (RFC 9112 9.6)
    max_missed_pongs: int = 2  # PROTOCOL 8.6.1

    @classmethod
    def of(cls, http: HttpLimits, websocket: WebSocketLimits) -> Limits:
        """As configured. What else `websocket` may hold bounds no single connection."""
        configured = {
            field.name: getattr(section, field.name)
            for section, kind in ((http, HttpLimits), (websocket, WebSocketLimits))
            for field in fields(kind)
        }
        return cls(**configured)
