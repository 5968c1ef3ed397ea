"""A server for tests of clients: real workers behind a proxy that causes faults from a seed."""
