"""Every bound of the core that is not configured, with its unit in its name and its source in a comment.

"ours" marks a bound that we chose. Configured bounds and timeouts are in settings/sections.py. `Limits` has the bounds of one
connection, which an embedder may set, including the configured ones. The constants are fixed (docs/protocol.md).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from openguild_proto.settings.sections import HttpLimits, MessagingSettings, WebSocketLimits

# Names, texts and pages
MAX_NAME_CHARS = 64  # PROTOCOL 1.3: guild, channel and user names, Unicode scalar values
MAX_RAW_NAME_CHARS = 4 * MAX_NAME_CHARS  # UAX 15: NFKC composes at most four characters into one, as for U+1F82
MAX_MARKS = 4  # UTS 39 5.4: nonspacing marks on one letter of a name
MAX_MESSAGE_CHARS = 4_000  # PROTOCOL 1.3.6
MAX_MESSAGE_VERSIONS = 100  # PROTOCOL 6.6.4: the first text and 99 edits
MAX_MESSAGE_EMOJI = 20  # PROTOCOL 6.6.5: distinct emoji among a message's reactions
MAX_EMOJI_CHARS = 64  # PROTOCOL 6.6.5: a family of four with skin tones has 11, a flag of tags 14
MAX_RAW_EMOJI_CHARS = 4 * MAX_EMOJI_CHARS  # as MAX_RAW_NAME_CHARS, for NFC
MAX_CHANNEL_PINS = 250  # PROTOCOL 6.6.6
MAX_MENTIONED_USERS = 50  # PROTOCOL 6.11.3
MAX_COUNTED_MENTIONS = 1_000  # PROTOCOL 7.10.2: unread mentions of one channel
MAX_TOPIC_CHARS = 1_024  # PROTOCOL 5.7.4
MAX_POSITION = 9_999  # PROTOCOL 5.7.4
MAX_SYNC_LOGS = 1_000  # PROTOCOL 7.9.2: positions in one request
LOGS_PER_READ = 20  # PROTOCOL 9.2.10: this many logs of one request count as one read
MAX_SYNC_BODY_BYTES = 131_072  # ours: MAX_SYNC_LOGS positions of 110 bytes
MAX_REASON_CHARS = 512  # PROTOCOL 6.6.3: a moderator's reason for redacting a message
MAX_SHOWN_REACTORS = 10  # PROTOCOL 7.8.3: users listed with the count of one emoji
MAX_PREVIEW_CHARS = 200  # PROTOCOL 7.8.3: of the message that is replied to
MIN_PASSWORD_CHARS = 8  # PROTOCOL 4.1.2
MAX_PASSWORD_CHARS = 1_024  # PROTOCOL 4.1.2; bounds the work of Argon2id
MAX_NONCE_CHARS = 64  # PROTOCOL 7.5.1, visible ASCII
MAX_DEVICE_FIELD_CHARS = 256  # ours: device id, device name, stored user agent
# Between servers
MAX_DELIVERED_EVENTS = 200  # PROTOCOL 16.8
MAX_DELIVERED_BYTES = 1024 * 1024  # PROTOCOL 16.8: events of one delivery, which has at least one event
MAX_DELIVERED_LOGS = 200  # PROTOCOL 16.8
BULK_EVENTS_PER_SEC = 10_000  # ours: that a process sends to all peers with a long backlog together
BUSY_BULK_EVENTS_PER_SEC = 2_500  # ours: the same, while local users post
MAX_ENDED_GUILDS = 1_000  # PROTOCOL 16.8: in one delivery
MAX_DELIVERY_BODY_BYTES = 2 * 1024 * 1024  # ours: of such a delivery as JSON
# PROTOCOL 16.8.8: processed at a time; an owner sends the next one after an answer or a timeout
MAX_DELIVERIES_OF_SERVER = 4
MAX_DELIVERIES_TAKEN = 64  # ours: processed at a time in a process, of all servers; each holds its body twice or more
MAX_COUNTED_MEMBERS = 10_000  # PROTOCOL 5.6.7: ours; counting costs time per member
MAX_MIRRORED_MEMBERS = 50_000  # PROTOCOL 16.5: of a guild that other servers mirror
MAX_MIRRORED_CHANNELS = 1_000  # PROTOCOL 16.5
# PROTOCOL 16.4.6: for one server in RENEWAL_SECS; many of its users may join a guild at once
MAX_SNAPSHOTS_OF_GUILD = 30
MAX_MIRRORED_ROLES = 50_000  # PROTOCOL 16.5.7: explicit roles in its channels
MAX_MIRRORED_EVENT_BYTES = 2 * 65_536  # ours: a proposal of MAX_PROPOSAL_BODY_BYTES with the owner's signature
MAX_EVENT_VALUES = 256  # PROTOCOL 16.8.14: in the content of an event; a message with all its mentions has 65
MAX_SIGNING_SERVERS = 4  # PROTOCOL 16.8.14: of one event; usually its home server and the owner of its log
MAX_SIGNATURES_PER_SERVER = 4  # PROTOCOL 16.8.14: usually the current and the previous key
MAX_MIRRORED_MS = 253_402_300_799_999  # ours: the last second of the year 9999, where Python's datetime ends
# PROTOCOL 9.2.4: a join at another server counts as this many changes, because it may return a snapshot
REMOTE_JOIN_WRITES = 12
REMOTE_PREVIEW_WRITES = REMOTE_JOIN_WRITES // 2  # PROTOCOL 9.2.4: a join previews the invite, then uses it
OWNER_RETRY_SECS = 5  # ours: Retry-After while the owner of a guild cannot be reached
MAX_PROPOSAL_SKEW_MS = 600_000  # PROTOCOL 16.6: between the time of a proposed event and the owner's clock
MAX_PROPOSAL_BODY_BYTES = 65_536  # ours: a message of 4,000 characters, escaped, with its other members
# PROTOCOL 16.6.2: 50 mentions are 2,000, a reason of 512 characters is at most 2,048
MAX_PROPOSED_BYTES_BESIDE_TEXT = 4_096
MAX_USER_REQUEST_BODY_BYTES = 65_536  # ours: a small body with its envelope
PEER_HEADS_SECS = 60.0  # PROTOCOL 16.8: between two checks of all logs that a peer mirrors
RENEWAL_SECS = 60.0  # PROTOCOL 16.5.9: a mirror restarts from a snapshot at most once in this time
PEER_LEASE_SECS = 6.0  # PROTOCOL 16.8.12: then another process takes over from a killed one
MIN_PEER_BACKOFF_SECS = 1.0  # ours: after the first failure, before jitter
MAX_PEER_BACKOFF_SECS = 3_600.0  # PROTOCOL 16.8: between two attempts to reach a peer

MAX_HANDOVER_BODY_BYTES = 1024 * 1024  # ours: the heads of 1,000 logs, and thousands of invites
MAX_COPIED_PAGES = 25  # ours: pages of history that a server reads before it reports its progress
HANDOVER_SECS = 30.0  # ours: for one step, in which MAX_COPIED_PAGES are read and verified
MAX_OWN_KEYS = 128  # ours: signing keys of this server over time; others accept more
MAX_NOTED_UNKNOWN = 1_000  # ours: notes of one owner that name users of this server who do not exist here
PEER_ANSWER_SECS = 8.0  # ours: less than http.request_timeout_secs, so that the error can name the other server
MAX_PEER_ANSWER_BYTES = 32 * 1024 * 1024  # ours: a response of another server: a snapshot with 50,000 members
MAX_SHORT_ANSWER_BYTES = 256 * 1024  # ours: of most other responses: 200 positions, 64 hand-overs
MAX_DECISION_BYTES = 512 * 1024  # ours: the response to a proposal: an event of MAX_MIRRORED_EVENT_BYTES, escaped
MAX_PAGE_ANSWER_BYTES = 8 * 1024 * 1024  # ours: a page: 200 messages of 4,000 characters, and what they reply to
MAX_FOLLOWED_HANDOVERS = 64  # ours: of one guild, in one response
MAX_LOST_OWNERS = 100  # ours: servers shown as lost
MAX_ASKED_PEERS = 32  # ours: concurrent deliveries of a process, each of up to MAX_DELIVERY_BODY_BYTES
MAX_LOOK_LOGS = 1_000  # ours: logs of one peer known to be behind; the rest is read when these are done
MAX_WAKING_LOGS = 1_000  # ours: logs known to have grown; beyond it all logs are checked
MAX_PROOF_EVENTS = 1_000  # PROTOCOL 16.9
CHAIN_STEP = 256  # ours: events between two stored values of a receipt chain

DEFAULT_PAGE_EVENTS = 50  # PROTOCOL 7.6.2
MAX_PAGE_EVENTS = 200  # PROTOCOL 7.6.2
MAX_PAGE_BYTES = 1024 * 1024  # ours: of a page's events, at least one event; 200 of 4,000 characters can be 4.9 MB
DEFAULT_SEARCH_HITS = 25  # PROTOCOL 7.11.8
MAX_SEARCH_HITS = 50  # PROTOCOL 7.11.8
MAX_QUERY_CHARS = 256  # PROTOCOL 7.11.9: of a search
MAX_QUERY_PARTS = 32  # PROTOCOL 7.11.9: words and pairs of characters of a search
MAX_QUERY_PLACES = 20  # PROTOCOL 7.11.9: channels and guilds of a search
MAX_EXCERPT_CHARS = 200  # PROTOCOL 7.11.8: of a found message
MIN_BEGINNING_CHARS = 3  # PROTOCOL 7.11.3: of a prefix that finds longer words
MAX_KNOWN_CHARACTERS = 65_536  # ours: cached character classes; others are computed each time
MAX_MARKS_IN_A_ROW = 30  # UAX 15 13, Stream-Safe Text Format: in a searched text
MAX_TERM_CHARS = 64  # ours: longer words are compared by their prefix; PostgreSQL takes 2,046 bytes
MAX_TERM_PLACES = 200  # ours: positions of one word in a message; PostgreSQL keeps 255
MAX_COMPARED_CHARS = 16_000  # PROTOCOL 7.11.12: of a normalised text; NFKC makes 18 characters of U+FDFA
MAX_TEXT_PLACES = 16_000  # ours: word positions in a message; PostgreSQL counts to 16,383
MAX_PAGE_LINES = 1_000  # PROTOCOL 3.5.1: guilds, channels, members; also the default
MAX_PROBLEMS = 20  # ours: reported for one request
MAX_JSON_DEPTH = 128  # PROTOCOL 3.3.2
MAX_JSON_CONTAINERS = 20_000  # PROTOCOL 3.3.2: in a body; 2 MiB of empty arrays take half a second
MAX_BODY_BYTES = 2 * 1024 * 1024  # PROTOCOL 2.3.2: of any request; most routes have a lower limit
MAX_SMALL_BODY_BYTES = 32_768  # ours: the largest login, 1,024 and 3 x 256 characters as \u pairs, has 21,504 bytes
MAX_MESSAGE_BODY_BYTES = 65_536  # ours: 4,000 characters as \u pairs have 48,000 bytes
MAX_SAFE_INTEGER = 2**53 - 1  # PROTOCOL 6.2.4: numbers in content
MAX_TIME_MS = 253_402_300_799_999  # the end of the year 9999, where RFC 3339 and datetime end
MAX_SEQUENCE = 2**63 - 1  # ours: PostgreSQL's bigint
MAX_REQUEST_ID_CHARS = 128  # PROTOCOL 2.5.2
MAX_METHOD_BYTES = 32  # ours: UPDATEREDIRECTREF, the longest method registered at IANA, has 17
MAX_WINDOW_KEYS = 100_000  # ours: per rate limit; beyond it the key admitted longest ago is evicted
MAX_LOGIN_BLOCKS = 1_000  # ours: set by operators, active at a time
MAX_LOGIN_BLOCK_SECS = 7 * 86_400  # ours
MAX_ACCOUNT_ADDRESSES = 10  # ours: login attempts on an account from all addresses, in multiples of one address's limit
MAX_REPEATS_PER_MESSAGE = 10  # ours: repeated posts that are not counted, in multiples of the message limits
KEPT_ANSWER_SECS = 86_400  # PROTOCOL 3.8.3: for the response to a creation with a key
MAX_KEPT_ANSWERS = 1_000  # PROTOCOL 3.8.3: per user, 300 bytes each
MAX_INVITE_USES = 1_000_000  # ours
MAX_INVITE_TTL_SECS = 365 * 86_400  # ours

# Sessions
MAX_DEVICES_PER_USER = 100  # ours: with a session; beyond it the least recently seen device is logged out
MAX_TOKEN_CHARS = 2_048  # ours: of an access token; checked first
MAX_CACHED_TOKENS = 65_536  # ours: verified tokens, evicted least recently used first
MAX_REVOKED_SESSIONS = 262_144  # ours: kept until their tokens have expired

MAX_SESSIONS_PER_RECORD = 1_000  # ours: per control record; 39 KB of JSON, NATS takes 1 MiB
MAX_CLOCK_DRIFT_SECS = 0.5  # ours: between a stream's end and its token's expiry, after the wall clock was set

# Fan-out
DEFAULT_CAPACITY_EVENTS = MessagingSettings.queue_capacity  # of a ring
DEFAULT_CAPACITY_BYTES = 1 << 20  # ours: 4,000 characters can be 24 KB of JSON
STRETCHED_RINGS = 16  # ours: factor by which a burst after a gap enlarges a ring
MAX_RING_INDEX = 1 << 62  # ours: far beyond any sequence, and within the 64 bits of the compiled ring
MAX_HELD_ITEMS = 4_096  # ours: of one channel, held after a gap; the rest is read from the log
MAX_HELD_BYTES = 4 * 1024 * 1024  # ours: the same, as for a ring

# Batches for the store, and their queues
MAX_BATCH_ITEMS = 256  # ours: appends in one transaction, access checks in one query
MAX_BATCH_BYTES = 2 * 1024 * 1024  # ours: of appends; the append that reaches it is the last of its batch
MAX_QUEUE_EVENTS = 8_192  # ours: queued appends, divided among the queues
MAX_QUEUE_BYTES = 32 * 1024 * 1024  # ours: the same
APPEND_OVERHEAD_BYTES = 512  # of a queued append, besides its two texts
BLOCKED_SECS = 1.0  # ours: posts to a locked channel, or by a locked user, are refused for this long
MAX_BLOCKED = 1_024  # ours: after an eviction, one batch waits for the lock timeout again
LOCK_TIMEOUT_MS = 500  # ours: another replica's commit takes milliseconds, or hundreds of them if the disk stalls
PROBE_LOCK_TIMEOUT_MS = 50  # ours: for a channel that is probably locked
RETRY_LIMIT_SECS = 1.0  # ours: for all parts of a batch together, because the whole table may be locked
MAX_QUEUED_ACCESS_CHECKS = 20_000  # ours
ACCESS_CHECK_BYTES = 512  # two ids, a future and their overhead

# Turns of a loop
TURN_SECS = 0.002  # ours: per turn, for one kind of work on many sockets; all kinds together stay below 0.01
EVENTS_OF_TURN = 16  # ours: events of another server verified in one turn, 2 to 3 ms
FEW_AT_ONCE = 32  # ours: up to so many need no check of the time
LONG_BODY_BYTES = 2_048  # PROTOCOL 9.5.5: longer request bodies wait for a turn; parsing takes up to half a millisecond
MAX_WAITING_BODY_BYTES = 128 * 1024 * 1024  # PROTOCOL 9.5.5: of bodies that wait for a turn
MAX_WAITING_BODY_BYTES_OF_ADDRESS = 16 * 1024 * 1024  # PROTOCOL 9.5.5: eight of the largest
MAX_WAITING_WORKS = 64  # ours: queued for a turn; beyond it the oldest is finished at once

# Following a log
GAP_GRACE_SECS = 0.05  # ours: results of one batch arrive in any order, and the bus may overtake them
ROOM_LOOK_SECS = 0.02  # ours: between checks for room in a full ring
TAIL_CHECK_SECS = 2.0  # ours: a lost last event is found in this time, plus jitter
CATCH_UP_SECS = 1.0  # ours: at least this long between two checks of all logs, even if the bus reconnects more often
PAGE_EVENTS = 200  # ours: per read of a channel's log
PAGE_RECORDS = 500  # ours: per read of the control log
MAX_CHANNELS_AT_ONCE = 200  # ours: opened or released together, 5 to 20 ms of the loop
MAX_SUBS_AT_ONCE = 64  # PROTOCOL 15.3.8: of a replica; the others wait in memory, without a database connection
KEPT_PAGE_BYTES = 2 * 1024 * 1024  # ours: cached pages of the log for replays, about 7,000 events
PIECE_BYTES = 65_536  # ours: of frames, per write to a socket

# Connections of a process
MIN_CONNECTIONS = 8  # ours: even with few file descriptors
SHED_LOOKS = 256  # ours: connections examined to find one to shed
HTTP_SHARE = 8  # ours: one in this many connections is reserved for HTTP
SPARE_CONNECTIONS = 10_000  # ours: HTTP connections in addition to the streams, at most
SPARE_DESCRIPTORS = 4  # ours: kept open, to be released when descriptors run out
MAX_DESCRIPTOR_MARGIN = 256  # ours: for descriptors that are not counted
DESCRIPTORS_SHORT_SECS = 5.0  # ours: the shortage counts as over this long after the last failed open

# Hints
TYPING_SHOWN_SECS = 5.0  # PROTOCOL 7.12.2: for which a client shows a signal
TYPING_SECS = 1.5  # PROTOCOL 7.12.2: between two forwarded signals of a user in a channel
MAX_TYPISTS_PER_CHANNEL = 8  # ours: forwarded in that time; clients show three names or "several people"
MAX_TYPISTS = 50_000  # ours: forwarded in that time by a replica
MAX_TYPING_CHARS = 120  # PROTOCOL 7.12.1: of a preview
MAX_HINT_DEPTH = 16  # ours: events of backlog up to which a user's slowest stream still gets hints
MAX_NOTIFIED_CHANNELS = 10_000  # PROTOCOL 8.10.10
MAX_LEASES = 500_000  # ours: users of other replicas with a known presence
MAX_REPORTED_USERS = 500  # ours: in one report; 30 KB of JSON, encoded in less than a millisecond
MAX_PRESENCE_USERS = 20  # ours: presence changes sent together, in less than MAX_EPHEMERAL_BYTES
PRESENCE_PAUSE_SECS = 0.1  # ours: between two of these
SOCKETS_AT_ONCE = 256  # ours: handled before other work gets its turn

# Replicas
MAX_PUBLISH_MESSAGES = 8_192  # ours: waiting to be published; more are dropped and found by the tail check
MAX_PUBLISH_BYTES = 8 * 1024 * 1024  # ours: the same
MAX_REPLICAS = 1_000  # ours: counted for a shared limit
WAVE_SECS = 0.1  # ours: between two waves of a drain
MIN_WAVE_SOCKETS = 50  # ours: fewer sockets need no waves
MAX_RECONNECTS_PER_SEC = 1_000  # ours: that the other replicas accept without affecting their clients
MAX_GATEWAY_RECONNECTS_PER_SEC = 250  # ours: the same for gateway sockets, which request many logs
MIN_SPREAD_MS = 100  # ours: over which the clients of a drained replica reconnect
MAX_SPREAD_MS = 10_000  # ours: the longest reconnect delay

CLOCK_DRIFT = 200e-6  # ours: seconds per second between two readings of the store's clock; twice the drift of quartz

# Retry-After
OVERLOADED_RETRY_SECS = 1  # ours
# PROTOCOL 9.6.2: if the full limit would admit the request; shares end when replicas hear from each other
SHARE_RETRY_SECS = 5.0
UNAVAILABLE_RETRY_SECS = 2  # ours: the database is down
CONNECTION_LIMIT_RETRY_SECS = 5  # ours: by then some stream has probably ended

# WebSocket (RFC 6455)
MAX_CONTROL_PAYLOAD_BYTES = 125  # RFC 6455 5.5
MAX_CLOSE_REASON_BYTES = 123  # RFC 6455 5.5.1: 125 less the code

# The gateway (PROTOCOL 15)
MAX_GATEWAY_LOGS = 1_000  # PROTOCOL 15.3.1: followed by one socket, and listed in one frame
MAX_TAIL_EVENTS = 200  # PROTOCOL 15.3.2: as for a page
MAX_REF = MAX_SAFE_INTEGER  # PROTOCOL 15.1.3
GATEWAY_AUTH_SECS = 10.0  # PROTOCOL 15.2.2
GATEWAY_HEARTBEAT_SECS = WebSocketLimits.ping_interval_secs  # PROTOCOL 15.6.1
GATEWAY_PING_SECS = 3_600.0  # ours: long, because heartbeats replace pings
GATEWAY_WRITE_SECS = 120.0  # ours: longer than a silent client is kept
SILENT_HEARTBEATS = 3  # PROTOCOL 15.6.2: without a byte from the client
# PROTOCOL 15.6.3: the same for a server; commands are retried for 60 s, which leaves time for another replica
SERVER_SILENT_HEARTBEATS = 2
TOKEN_NOTICE_SECS = 60.0  # PROTOCOL 15.2.5: before the token expires; a tenth of a shorter lifetime
SLOT_GRACE_SECS = 5.0  # PROTOCOL 15.7.2: for a client that has not left in its slot
MAX_HELD_FRAMES = 64  # ours: from a client, queued behind a running command; beyond it the socket is not read
MAX_HELD_FRAME_BYTES = 262_144  # ours: the same, four of the longest
MAX_UNSENT_ANSWER_BYTES = 262_144  # ours: per socket; beyond it the socket is not read
MAX_EPHEMERAL_BYTES = 4_096  # ours: unsent on one socket; beyond it new ones are dropped
GATEWAY_TURN_BYTES = 16_384  # ours: of one log, before the socket's next log has its turn
PAGE_RETRY_SECS = 2.0  # ours: after a failed read of a log
DATABASE_PATIENCE_SECS = 5.0  # PROTOCOL 15.9.3: before a client leaves a server without a database for another

# The client's side
MAX_LISTED_MESSAGES = 1_000  # ours: in a client's list of a channel's newest messages
MAX_PENDING_COMMANDS = 1_000  # ours: unanswered, of one gateway client
READ_MARK_SECS = 1.0  # PROTOCOL 15.9.6: between two updates of a read position by a client
MAX_RESPONSE_HEAD_BYTES = 65_536  # ours
MAX_RESPONSE_BODY_BYTES = 32 * 1024 * 1024  # ours: far above a page of 200 events of 4,000 characters
MAX_INTERIM_RESPONSES = 16  # ours: 1xx responses before the final one
# ours: of one response's body, of any size; a chunk costs as much work as 1,000 bytes
MAX_FREE_CHUNKS = 4_096
MIN_CHUNK_BYTES = 256  # ours: average size of the chunks beyond MAX_FREE_CHUNKS
MAX_REFUSAL_CHARS = 65_536  # ours: of the body of a refused upgrade
MAX_STREAM_MESSAGE_CHARS = 4 * 1024 * 1024  # ours: of one message of a stream
CLIENT_HANDSHAKE_SECS = 10.0  # ours: from the connection to the 101
CLIENT_SILENCE_SECS = 60.0  # two pings are missing: the server pings every 25 s (PROTOCOL 8.6)
REFRESH_AHEAD_SECS = 60.0  # ours: before the token expires; a tenth of a shorter lifetime
BACKOFF_BASE_SECS = 0.25  # ours
BACKOFF_MAX_SECS = 15.0  # ours


# Kept in memory for the operator of a replica
MAX_REMEMBERED_REQUESTS = 8_192  # ours: ordinary ones, and as many refused, failed or slow ones; 0.4 KiB each
SLOW_REQUEST_SECS = 0.75  # playbook: HTTP p95
MAX_REMEMBERED_LINES = 4_096  # ours: log lines about requests; 0.5 KiB each on average
MAX_REMEMBERED_LINE_CHARS = 4_096  # ours: of one line, with its traceback
MAX_COUNTED_KEYS = 1_000  # ours: users with requests in the last minute; addresses and accounts with failed logins
CLOSED_READER_SECS = 3_600.0  # ours: for which a slow reader that was closed stays listed
MAX_CLOSED_READERS = 200  # ours


# Slow peers
MAX_UNFINISHED_BODY_BYTES = 128 * 1024 * 1024  # ours: of all request bodies of a process that have arrived in part
MAX_UNSENT_RESPONSE_BYTES = 256 * 1024 * 1024  # ours: of all HTTP responses of a process that wait for slow readers


@dataclass(frozen=True, kw_only=True)
class Limits(HttpLimits, WebSocketLimits):
    """The bounds of one connection. Each is checked before the work that it bounds."""

    max_target_bytes: int = 8_192  # of the request target; RFC 9112 3: at least 8000 octets
    max_head_bytes: int = 32_768  # request line and headers together
    max_header_count: int = 100  # of one request
    max_header_line_bytes: int = 8_192  # one header
    max_body_bytes: int = MAX_BODY_BYTES  # of any request
    unquestioned_body_bytes: int = MAX_SMALL_BODY_BYTES  # longer bodies are only read if `max_body_of` allows it
    max_chunk_line_bytes: int = 256  # chunk size and extensions, RFC 9112 7.1.1
    max_body_chunks: int = 4_096  # of one body, ours: small chunks cost more work than their bytes
    max_pipelined_bytes: int = 65_536  # kept unparsed until the current request is answered
    max_message_fragments: int = 1_024  # frames of an unfinished message, ours
    max_outbox_bytes: int = 1_048_576  # queued for one peer; a message or pong that exceeds it ends the connection
    frame_timeout_secs: float = 30.0  # ours: from the first byte of a WebSocket frame to its last, as for a body
    min_write_bytes_per_sec: int = 8_192  # ours: of a blocked HTTP response, on average
    close_timeout_secs: float = 5.0  # from our close frame to the peer's
    linger_timeout_secs: float = 2.0  # ours: from the end of our side of the stream to the peer's (RFC 9112 9.6)
    max_missed_pongs: int = 2  # pings in a row without a pong, PROTOCOL 8.6.1

    @classmethod
    def of(cls, http: HttpLimits, websocket: WebSocketLimits) -> Limits:
        """Return limits with the configured values. Keys of `websocket` that do not bound a single connection are ignored."""
        configured = {
            field.name: getattr(section, field.name)
            for section, kind in ((http, HttpLimits), (websocket, WebSocketLimits))
            for field in fields(kind)
        }
        return cls(**configured)
