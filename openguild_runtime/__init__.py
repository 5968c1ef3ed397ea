"""The thin runtime: anyio drives the I/O-free core against sockets, PostgreSQL and NATS."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("openguild")  # pyproject.toml's
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0.0.0"
