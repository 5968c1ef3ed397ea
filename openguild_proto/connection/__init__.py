"""One byte stream: the state machine of a connection, its deadlines and its outbox."""
