"""The state machine of one connection, its deadlines and its outbox."""
