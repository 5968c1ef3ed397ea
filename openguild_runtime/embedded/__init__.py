"""A private PostgreSQL and a private NATS from wheels, for `--embedded` and for tests. They need no system packages."""

from openguild_runtime.embedded.nats import EmbeddedNats
from openguild_runtime.embedded.postgres import EmbeddedPostgres, running_url
from openguild_runtime.embedded.server import EmbeddedError, EmbeddedServer, data_dir_error

__all__ = ["EmbeddedError", "EmbeddedNats", "EmbeddedPostgres", "EmbeddedServer", "data_dir_error", "running_url"]
