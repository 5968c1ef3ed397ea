"""`make descriptions`: /openapi.json and /asyncapi.json of a running server, given to the tools that others would use.

- the AsyncAPI parser reads the one without a remark;
- openapi-typescript and openapi-python-client generate clients from the other, which `tsc --strict` and `mypy --strict` accept, and
  with which two people chat;
- schemathesis finds no request that is answered otherwise than described.

deploy/ci/tools.sh installs the tools, in the versions that deploy/ci/npm_tools.txt and python_tools.txt name. What is not
there is named and skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.support.server import ServerProcess

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NODE_MODULES = ROOT / "build/npm/node_modules"
PYTHON_TOOLS = ROOT / "build/python_tools/bin"
RULES = {
    "username": "^[a-z\u00e9\u0434\u672c]{1,64}$",
    "title": "^[a-z\u00e9\u0434\u672c]{1,64}$",
    "emoji": "^(\U0001f44b|\u2764|[+]1)$",
}
WIDE = 1_000_000  # of limits that many requests would reach
LIMITS = (
    "GUILDS__MAX_OWNED_PER_USER", "GUILDS__MAX_JOINED_PER_USER", "GUILDS__MAX_CHANNELS_PER_GUILD", "GUILDS__MAX_INVITES_PER_GUILD",
    "SEARCH__MAX_SEARCHES_PER_USER_PER_WINDOW", "MESSAGING__MAX_TYPING_PER_USER_PER_WINDOW",
    "SESSION__MAX_LOGINS_PER_ACCOUNT_PER_WINDOW", "SESSION__MAX_REFRESHES_PER_ACCOUNT_PER_WINDOW",
)  # fmt: skip


class Failed(Exception):
    """A tool has found something; it has said what."""


def run(command: Sequence[str | Path], *, cwd: Path, stdin: str = "", words: Sequence[str] = (), **env: str) -> None:
    """Run a tool to its end. `words`: what its output must not hold."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, input=stdin, capture_output=True, text=True, env=os.environ | env, check=False
    )  # fmt: skip
    said = done.stdout + done.stderr
    if done.returncode != 0 or any(word in said for word in words):
        sys.stdout.write(said)
        raise Failed(f"{Path(command[0]).name} ended with {done.returncode}")


class Chat:
    """Somebody with a guild, a channel, a message and an invite."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url + "/client/v1", trust_env=False)
        self._post("/users/register", {"username": name, "password": "correct horse"})
        login = {"identifier": name, "secret": "correct horse", "device": {"device_id": "kept"}}
        self.token = self._post("/sessions/login", login)["access_token"]
        self._http.headers["authorization"] = f"Bearer {self.token}"
        self.guild = self._post("/guilds", {"name": "Tea room"})["guild_id"]
        self.channel = self._post(f"/guilds/{self.guild}/channels", {"name": "general"})["channel_id"]
        self.event = self._post(f"/channels/{self.channel}/messages", {"content": "hello"})["event_id"]
        self.code = self._post(f"/guilds/{self.guild}/invites", {})["code"]

    def _post(self, path: str, body: object) -> dict[str, str]:
        answer = self._http.post(path, json=body)
        answer.raise_for_status()
        found: dict[str, str] = answer.json()
        return found


class Descriptions:
    """The checks, on one server. `examples`: of schemathesis for each operation, by `seed`. `place`: for what is generated."""

    def __init__(self, url: str, place: Path, examples: int, seed: int) -> None:
        self.url = url
        self.place = place
        self.examples = examples
        self.seed = seed
        self.openapi = place / "openapi.json"
        self.openapi.write_text(httpx.get(url + "/openapi.json", trust_env=False).raise_for_status().text)
        self.asyncapi = httpx.get(url + "/asyncapi.json", trust_env=False).raise_for_status().text

    def asyncapi_parser(self) -> None:
        run(["node", HERE / "asyncapi.mjs", NODE_MODULES], cwd=self.place, stdin=self.asyncapi)

    def typescript(self) -> None:
        place = self.place / "typescript"
        place.mkdir()
        (place / "node_modules").symlink_to(NODE_MODULES)
        (place / "package.json").write_text('{"type": "module"}')
        for name in ("chat.ts", "tsconfig.json"):
            shutil.copy(HERE / name, place)
        programs = NODE_MODULES / ".bin"
        run([programs / "openapi-typescript", self.openapi, "-o", "api.d.ts"], cwd=place, words=("warn", "Warn"))
        run([programs / "tsc", "--project", "."], cwd=place)
        run(["node", "out/chat.js", self.url, "typescript"], cwd=place)

    def python(self) -> None:
        place = self.place / "python"
        place.mkdir()
        client = place / "openguild_client"
        settings = ["--meta", "none", "--config", HERE / "openapi_python_client.yaml", "--fail-on-warning"]
        program = [PYTHON_TOOLS / "openapi-python-client", "generate", "--path", self.openapi, "--output-path", client]
        run([*program, *settings], cwd=place, words=("Warning",))
        (client / "py.typed").touch()
        python, chat = PYTHON_TOOLS / "python", HERE / "chat.py"
        strict = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", place / "cache"]
        run([*strict, "--python-executable", python, client, chat], cwd=place, MYPYPATH=str(place))
        run([python, chat, self.url, "python"], cwd=place, PYTHONPATH=str(place))

    def schemathesis(self) -> None:
        document = json.loads(self.openapi.read_text())
        for mode in ("positive", "negative"):
            described = self.place / f"openapi-{mode}.json"
            described.write_text(json.dumps(without_rules(document, narrow=mode == "positive")))
            for ending in (False, True):
                chat = Chat(self.url, f"owner-{mode}-{ending}")
                known = vars(chat) | {"ending": str(ending).lower()}
                text = (HERE / "schemathesis.toml").read_text()
                for name, value in known.items():
                    text = text.replace(f"{{{name}}}", str(value))
                settings = self.place / f"schemathesis-{mode}-{ending}.toml"
                settings.write_text(text)
                only = [f"--include-operation-id={name}" for name in ENDING] if ending else []
                program = [
                    PYTHON_TOOLS / "schemathesis",
                    "--config-file",
                    settings,
                    "run",
                    described,
                    "--url",
                    self.url,
                ]
                phases = ["--phases", "examples,coverage,fuzzing", "--max-examples", str(self.examples), "--mode", mode]
                options = ["--seed", str(self.seed), "--workers", "1", "--no-color"]
                run([*program, *phases, *options, *only], cwd=self.place)


def without_rules(document: dict[str, Any], *, narrow: bool) -> dict[str, Any]:
    """Return a copy of the document without the formats that stand for rules of the server, which a tool cannot know.

    `narrow`: texts that clients send are of letters that every rule admits. What a pattern refuses the server refuses,
    whatever the rule.
    """
    copy: dict[str, Any] = json.loads(json.dumps(document))
    schemas = copy["components"]["schemas"]
    bodies = [body for path in copy["paths"].values() for route in path.values() if (body := route.get("requestBody"))]
    sent: set[str] = set()
    for node in walk(bodies, schemas, sent):
        rule = node.get("format")
        if narrow and rule in RULES:
            node["pattern"] = RULES[rule]
    for node in walk(copy, {}, set()):
        if node.get("format") in RULES:
            del node["format"]
    return copy


def walk(node: Any, schemas: dict[str, Any], seen: set[str]) -> Iterator[dict[str, Any]]:
    """Yield every object of the document below `node`, also where a reference leads into `schemas`, each once."""
    if isinstance(node, dict):
        yield node
        name = str(node.get("$ref", "")).rpartition("/")[2]
        if name in schemas and name not in seen:
            seen.add(name)
            yield from walk(schemas[name], schemas, seen)
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child, schemas, seen)


ENDING = ("delete_guild", "delete_channel", "delete_device", "revoke", "leave", "delete_invite")


def missing() -> dict[str, str]:
    """Return the checks that cannot run, and why."""
    found: dict[str, str] = {}
    if shutil.which("node") is None or not (NODE_MODULES / "openapi-typescript").exists():
        found |= dict.fromkeys(
            ("asyncapi_parser", "typescript"), "no node, or no npm packages: deploy/ci/tools.sh installs them"
        )
    if not (PYTHON_TOOLS / "schemathesis").exists():
        found |= dict.fromkeys(("python", "schemathesis"), "no Python tools: deploy/ci/tools.sh installs them")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=8, help="of schemathesis for each operation")
    parser.add_argument("--seed", type=int, default=1, help="of schemathesis; another one for other examples")
    asked = parser.parse_args()
    skipped = missing()
    failed = False
    with tempfile.TemporaryDirectory(prefix="descriptions") as directory:
        place = Path(directory)
        limits = dict.fromkeys(LIMITS, WIDE)
        server = ServerProcess(place, "--embedded", "--data-dir", str(place / "data"), **limits)
        server.start()
        try:
            checks = Descriptions(server.base_url, place, asked.examples, asked.seed)
            each: tuple[Callable[[], None], ...] = (
                checks.asyncapi_parser, checks.typescript, checks.python, checks.schemathesis,
            )  # fmt: skip
            for check in each:
                name, started = check.__name__, time.monotonic()
                if name in skipped:
                    say(f"{name}: skipped: {skipped[name]}")
                    continue
                try:
                    check()
                    say(f"{name}: good, {time.monotonic() - started:.0f} s")
                except Failed as failure:
                    failed = True
                    say(f"{name}: FAILED: {failure}")
        finally:
            server.stop()
    return int(failed)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
