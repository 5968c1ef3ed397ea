"""The configuration of alembic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing alembic and SQLAlchemy takes a third of a second: done on use
    import io

    from alembic.config import Config


def config(output: io.StringIO | None = None) -> Config:
    """Return alembic's configuration. `output` receives the script of `migrate --sql`."""
    from alembic.config import Config

    made = Config(output_buffer=output)
    made.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made
