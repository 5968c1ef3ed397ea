"""The thin runtime: anyio drives the I/O-free core against sockets, PostgreSQL and NATS."""

__version__ = "0.1.0"
