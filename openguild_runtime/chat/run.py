"""Runs the terminal chat."""

from __future__ import annotations

import anyio

from openguild_runtime.chat.app import ChatApp
from openguild_runtime.client import Client


def chat(url: str, session_file: str | None) -> int:
    """Chat on the server at `url` until the user quits. Raises ValueError for an invalid address or session file."""

    async def run() -> None:
        async with Client(url, session_file=session_file, retry_secs=10.0) as client:
            await ChatApp(client).run_async()

    anyio.run(run)
    return 0
