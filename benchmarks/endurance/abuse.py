"""Twelve kinds of abuse at a steady rate: seven in separate processes (benchmarks/hostile/attackers.py), five here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.support.chat import User
from tests.support.server import ServerProcess

ATTACKERS = Path(__file__).parents[1] / "hostile/attackers.py"
ATTACKS = ("slow header", "slow body", "silent", "slow reader", "ping flood", "fragments", "huge frame")
REQUESTS = ("wrong password", "made-up token", "repeated nonce", "broken JSON", "large body")
KINDS = [*ATTACKS, *REQUESTS]
ATTACK_SECS = 30.0
PEERS = 5  # concurrent peers of each attack
PAUSE_SECS = 0.1  # between two requests


class Abuse:
    """Runs the attacks one after another; `step` starts those that are due."""

    def __init__(self, server: ServerProcess, user: User, channel: str) -> None:
        self._port, self._user, self._channel = server.port, user, channel
        self._client = httpx.Client(base_url=server.base_url, trust_env=False, timeout=30)
        self._attack: subprocess.Popen[bytes] | None = None
        self._attacks = self._requests = 0

    def step(self, passed: float) -> None:
        """Start what is due. `passed`: seconds since the beginning."""
        if self._attack is None or self._attack.poll() is not None:
            kind = ATTACKS[self._attacks % len(ATTACKS)]
            arguments = [str(self._port), self._user.token, self._channel, kind, str(PEERS), str(ATTACK_SECS)]
            self._attack = subprocess.Popen([sys.executable, str(ATTACKERS), *arguments], stdout=subprocess.DEVNULL)
            self._attacks += 1
        if passed >= self._requests * PAUSE_SECS:
            asked: list[Callable[[], httpx.Response]] = [
                self._wrong_password, self._made_up_token, self._repeated_nonce, self._broken_json, self._large_body,
            ]  # fmt: skip
            answer = asked[self._requests % len(asked)]()
            if answer.status_code >= 500 and answer.status_code != 503:
                raise RuntimeError(f"{answer.status_code} for abuse: {answer.text}")
            self._requests += 1

    def _wrong_password(self) -> httpx.Response:
        body = {"identifier": f"nobody{self._requests}", "secret": "wrong guess", "device": {"device_id": "x"}}
        return self._client.post("/sessions/login", json=body)

    def _made_up_token(self) -> httpx.Response:
        return self._client.get("/users/me", headers={"authorization": f"Bearer {self._requests:064d}"})

    def _repeated_nonce(self) -> httpx.Response:
        return self._post(json={"content": "again", "nonce": "the-same"})

    def _broken_json(self) -> httpx.Response:
        return self._post(content=b'{"content":' * 50)

    def _large_body(self) -> httpx.Response:
        return self._post(json={"content": "x" * 60_000})

    def _post(self, **body: object) -> httpx.Response:
        path = f"/channels/{self._channel}/messages"
        headers = {**self._user.auth, "content-type": "application/json"}
        return self._client.post(path, headers=headers, **body)  # type: ignore[arg-type]

    def __enter__(self) -> Abuse:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        if self._attack is not None:
            self._attack.kill()
            self._attack.wait()
