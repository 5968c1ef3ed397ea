"""Tables of channels, of the logs of events, and of the states of messages.

Events, states, reactions and read positions have no foreign key to their log, because it would cost a check for each event.
Writers lock the row of the log or of its channel. A deletion of the log locks that row first, and then deletes them, or leaves
them to `PurgeDeleted`.
"""

PARTITIONS = 8  # of the events, so that indexes stay small; statements give the log, so PostgreSQL uses one partition

CHANNELS = """
CREATE TABLE channels (
    channel_id uuid PRIMARY KEY,
    guild_id   uuid NOT NULL REFERENCES guilds ON DELETE CASCADE,
    name       text NOT NULL,
    created_at timestamptz NOT NULL,
    topic      text,
    position   integer NOT NULL DEFAULT 0,
    origin     text
);
COMMENT ON COLUMN channels.origin IS 'as of its guild';
CREATE INDEX channels_guild ON channels (guild_id, created_at, channel_id);

CREATE TABLE channel_memberships (
    channel_id uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    user_id    uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    role       text NOT NULL,
    joined_at  timestamptz NOT NULL,
    PRIMARY KEY (channel_id, user_id)
);
CREATE INDEX channel_memberships_user ON channel_memberships (user_id);

CREATE TABLE channel_read_state (
    channel_id         uuid NOT NULL,
    user_id            uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    last_read_sequence bigint NOT NULL DEFAULT 0,
    last_read_messages bigint NOT NULL DEFAULT 0,
    own_since          bigint NOT NULL DEFAULT 0,
    updated_at         timestamptz NOT NULL,
    PRIMARY KEY (channel_id, user_id)
) WITH (fillfactor = 70);
COMMENT ON COLUMN channel_read_state.last_read_messages IS 'messages of the channel up to the position';
COMMENT ON COLUMN channel_read_state.own_since IS 'messages of the user behind the position: what else is behind it is unread';
CREATE INDEX channel_read_state_user ON channel_read_state (user_id);
"""

LOGS = """
CREATE TABLE logs (
    log_id        uuid PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('channel', 'guild', 'user')),
    epoch         bigint NOT NULL DEFAULT 1,
    head_sequence bigint NOT NULL DEFAULT 0,
    message_count bigint NOT NULL DEFAULT 0,
    base_sequence bigint
) WITH (fillfactor = 70);
COMMENT ON COLUMN logs.base_sequence IS 'events up to here are at its origin only, or were lost with it; NULL: all are here';
COMMENT ON TABLE logs IS 'one for each channel, guild and user, under its id; not partitioned, for every append joins it';
COMMENT ON COLUMN logs.epoch IS 'which log the sequences count in: 1 to 2^53 - 1, another one after each restore';
COMMENT ON COLUMN logs.head_sequence IS 'sequence of the newest event; raised under the lock of this row';

CREATE TABLE deleted_logs (
    log_id uuid PRIMARY KEY
);
COMMENT ON TABLE deleted_logs IS 'large logs whose row is gone, and whose events and what belongs to them are being deleted';

CREATE TABLE log_events (
    log_id         uuid NOT NULL,
    sequence       bigint NOT NULL,
    event_id       text NOT NULL,
    event_type     text NOT NULL,
    sender_id      text NOT NULL,
    wire           bytea NOT NULL,
    nonce          text,
    fingerprint    bytea NOT NULL,
    message_number bigint NOT NULL,
    target         bigint,
    created_at     timestamptz NOT NULL,
    PRIMARY KEY (log_id, sequence)
) PARTITION BY HASH (log_id);
COMMENT ON COLUMN log_events.wire IS 'the event as clients get it, id and signatures filled in';
COMMENT ON COLUMN log_events.message_number IS 'messages of the log up to here, this one with them';
COMMENT ON COLUMN log_events.target IS
    'sequence of the message that the event changes or answers; below 0: of an edit that does nothing to one (stray_place)';
CREATE UNIQUE INDEX log_events_id ON log_events (log_id, event_id);
CREATE UNIQUE INDEX log_events_nonce ON log_events (log_id, sender_id, nonce) WHERE nonce IS NOT NULL;
CREATE INDEX log_events_messages ON log_events (log_id, sequence) WHERE event_type = 'message';
CREATE INDEX log_events_edits ON log_events (log_id, target, sequence) WHERE event_type = 'message.edited';
"""

EVENT_PARTITIONS = "".join(
    f"CREATE TABLE log_events_{part} PARTITION OF log_events FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {part});\n"
    for part in range(PARTITIONS)
)

STATES = """
CREATE TABLE message_states (
    log_id      uuid NOT NULL,
    sequence    bigint NOT NULL,
    revision    bigint NOT NULL,
    edited_text text,
    edited_at   timestamptz,
    versions    integer NOT NULL,
    redacted_by text,
    pinned_at   timestamptz,
    replies     bigint NOT NULL,
    reactions   text NOT NULL,
    crowded     boolean NOT NULL,
    PRIMARY KEY (log_id, sequence)
) WITH (fillfactor = 70);
COMMENT ON TABLE message_states IS 'messages to which something has happened; another one is as its event says';
COMMENT ON COLUMN message_states.revision IS 'sequence of the event that changed it last';
COMMENT ON COLUMN message_states.reactions IS 'JSON as pages show it to those who have not reacted';
COMMENT ON COLUMN message_states.crowded IS 'more users have used one of the emoji than are named';
CREATE INDEX message_states_pins ON message_states (log_id, pinned_at, sequence) WHERE pinned_at IS NOT NULL;

CREATE TABLE reactions (
    log_id  uuid NOT NULL,
    message bigint NOT NULL,
    emoji   text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (log_id, message, emoji, user_id)
);
"""
