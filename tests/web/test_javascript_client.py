"""docs/web/openguild.js in Node against a real server: resuming, posts stored once, drains, tokens, slow readers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.chat import PASSWORD, User
from tests.support.waiting import wait_until
from tests.web.control import control_port, controlled_server

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"


@pytest.mark.timeout(240)
def test_the_client_in_node(node: str, module_database: str, module_directory: Path) -> None:
    with controlled_server(module_database, module_directory) as controlled, control_port(controlled) as port:
        done = subprocess.run(
            [node, "--experimental-websocket", "--no-warnings", "--test-reporter=spec", HERE / "client.test.mjs"],
            env=os.environ | {
                "URL_OF_SERVER": controlled.url, "DIRECT": controlled.server.base_url, "CONTROL": f"http://127.0.0.1:{port}",
            },
            capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]


@pytest.mark.parametrize("about", ["loops", "requests", "sessions", "everything", "gateway"])
def test_the_client_without_a_server(node: str, about: str) -> None:
    command = [node, "--no-warnings", "--test-reporter=spec", HERE / f"{about}.test.mjs"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]


def test_the_bot_of_the_documentation(node: str, alice: User) -> None:
    bot = DOCS / "examples/bot.mjs"
    assert f"```js\n{bot.read_text()}```" in (DOCS / "client-js.md").read_text()
    marvin = alice.chat.user()
    guild = alice.guild()
    channel = alice.channel(guild)
    link = f"http://127.0.0.1:8081/#invite={alice.invite(guild)}"
    command = [node, "--experimental-websocket", "--no-warnings", bot, alice.chat.base_url, marvin.name, PASSWORD, link]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:

            def answers() -> list[str]:
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                alice.say(channel, "ping")
                texts = [event["event"]["content"]["content"] for event in alice.history(channel)]
                return [text for text in texts if text != "ping"]

            assert set(wait_until(answers)) == {f"pong, {alice.name}"}
        finally:
            process.kill()


def test_the_bot_that_goes_on_where_it_stopped(node: str, alice: User, tmp_path: Path) -> None:
    bot, file = DOCS / "examples/kept_bot.mjs", tmp_path / "bot.json"
    assert f"```js\n{bot.read_text()}```" in (DOCS / "client-js.md").read_text()
    marvin = alice.chat.user()
    guild = alice.guild()
    channel = alice.channel(guild)
    command = [node, "--experimental-websocket", "--no-warnings", bot, file, alice.chat.base_url, marvin.name]

    def answered() -> list[str]:
        lines = alice.ok(alice.get(f"/channels/{channel}/messages"))
        return [line["reply_to"] for line in lines if line["content"] == f"pong, {alice.name}"]

    def answers(ping: str | None) -> bool:
        """Return whether `ping` is answered; with None, whether one that is posted now is."""
        if ping is None:
            alice.say(channel, "ping")
        return ping in answered() or (ping is None and answered() != [])

    missed, last, before = None, [PASSWORD, alice.invite(guild)], b""
    for _ in range(3):
        with subprocess.Popen([*command, *last]) as process:
            try:
                wait_until(lambda ping=missed: answers(ping))
                if missed is None:
                    wait_until(lambda: f"channel:{channel}" in file.read_text())
                    before = file.read_bytes()
            finally:
                process.kill()
        file.write_bytes(before)  # as after a kill before it saved its positions
        missed, last = alice.say(channel, "ping")["event_id"], ["not needed"]
    assert len(set(answered())) == len(answered())
    assert file.stat().st_mode & 0o777 == 0o600
