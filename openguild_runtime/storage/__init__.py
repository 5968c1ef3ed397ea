"""Where the log is kept: PostgreSQL, or memory when it is asked for by name (PROTOCOL 11.4.4)."""
