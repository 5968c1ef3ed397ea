"""Where alembic finds the steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # alembic and SQLAlchemy take a third of a second to import: done where they are used
    import io

    from alembic.config import Config


def config(output: io.StringIO | None = None) -> Config:
    """alembic's own configuration; `output` takes the script of `migrate --sql`."""
    from alembic.config import Config

    made = Config(output_buffer=output)
    made.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made
