"""A server for authors of clients: real workers behind a proxy that causes faults by a seed."""
