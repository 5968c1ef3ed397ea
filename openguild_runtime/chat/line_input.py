"""The input for a line."""

from __future__ import annotations

from textual import events
from textual.widgets import Input


class LineInput(Input):
    """An input that joins the lines of a pasted text with spaces. Textual's would drop all but the first."""

    def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        if event.text:
            self.replace(" ".join(event.text.splitlines()), *self.selection)
