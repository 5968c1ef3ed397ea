"""Tables of mentions: a row for each user that a message mentions by ID, and one for its mentions of roles and of everyone.

They have no foreign key to the log, because writers lock its row.
"""

MENTIONS = """
CREATE TABLE mentions (
    user_id    uuid NOT NULL,
    log_id     uuid NOT NULL,
    sequence   bigint NOT NULL,
    event_id   text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, log_id, sequence)
);
CREATE INDEX mentions_newest ON mentions (user_id, created_at, event_id);
CREATE INDEX mentions_message ON mentions (log_id, sequence);

CREATE TABLE mentions_of_many (
    log_id     uuid NOT NULL,
    sequence   bigint NOT NULL,
    event_id   text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    sender_id  text NOT NULL,
    roles      text[] NOT NULL,
    everyone   boolean NOT NULL,
    PRIMARY KEY (log_id, sequence)
);
COMMENT ON TABLE mentions_of_many IS 'whom it means is decided when it is read';
CREATE INDEX mentions_of_many_newest ON mentions_of_many (log_id, created_at, event_id);
"""
