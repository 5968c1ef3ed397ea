"""The delivery of logs to the servers that mirror them, as state machines without I/O (PROTOCOL 16.8)."""
