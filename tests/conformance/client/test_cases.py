"""The cases of README.md: the core's client and the JavaScript one behave the same, step by step."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openguild_proto import limits
from openguild_proto.client import ReadMarks
from openguild_proto.errors import ErrorCode
from openguild_proto.gateway import client_events as told
from openguild_proto.gateway.client import GatewayClient
from openguild_proto.gateway.client_logs import LINE_BYTES, TEMPORARY, ResumePosition
from openguild_proto.gateway.client_phases import CLIENT_PHASES, CLIENT_TRANSITIONS
from openguild_proto.gateway.close_codes import GATEWAY_CLOSES, AfterClose
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import AnyCommand

HERE = Path(__file__).parent
CASES: dict[str, dict[str, Any]] = {
    f"{path.name}: {case['name']}": case
    for path in sorted(HERE.glob("*.json"))
    for case in json.loads(path.read_text())
}
READ_MARKS: dict[str, dict[str, Any]] = {
    f"read_marks: {case['name']}": case for case in json.loads((HERE / "read_marks/cases.json").read_text())
}
HELLO = {
    "type": "hello", "heartbeat_ms": 25_000, "auth_ms": 10_000, "server_time": "2026-01-01T00:00:00.000Z", "capabilities": [],
    "limits": {"logs": 1_000, "frame_bytes": 65_536, "frames_per_minute": 600, "held_frames": 64},
}  # fmt: skip
READY = {
    "type": "ready", "user": {"user_id": "0198c0de-0000-7000-8000-00000000000a", "username": "alice"}, "guilds": [], "heads": [],
    "session": {"session_id": "0198c0de-0000-7000-8000-00000000000b", "expires_at": "2026-01-01T12:00:00.000Z"},
}  # fmt: skip


class Script:
    """Runs the steps of a case on the core's client."""

    def __init__(self) -> None:
        self.client = GatewayClient(Encoding.JSON, jitter=lambda: 0.5, random_bytes=bytes)
        self._now_ms = 0
        self._told: list[dict[str, Any]] = []
        self._sent: list[dict[str, Any]] = []
        self._refs: dict[str, Any] = {}  # ref in the script -> ref of the client
        self._names: dict[int, str] = {}  # ref of a command -> its name

    @property
    def _now(self) -> float:
        return self._now_ms / 1_000

    def step(self, step: dict[str, Any]) -> None:
        if "do" in step:
            self._do(step)
        elif "server" in step:
            self._serve(step)
        elif "pass" in step:
            self._pass(step["pass"])
        self._collect()
        if "told" in step:
            assert self._told == step["told"]
            self._told.clear()
        if "sent" in step:
            assert self._sent == self._bound(step["sent"])
            self._sent.clear()
        if "places" in step:
            assert {log: list(place) for log, place in self.client.places.items()} == step["places"]

    def _do(self, step: dict[str, Any]) -> None:
        client = self.client
        match step["do"]:
            case "start":
                client.start("t1", self._now)
            case "follow":
                client.follow(
                    step["log"], ResumePosition(*step["place"]) if "place" in step else None, tail=step.get("tail")
                )
            case "unfollow":
                client.unfollow(step["log"])
            case "close":
                client.close()
            case "token":
                client.set_token(step["token"], self._now)
            case "send":
                command = msgspec.convert(step["command"] | {"ref": 0}, AnyCommand)
                self._names[client.send(command)] = step["as"]
            case other:
                pytest.fail(f"unknown: {other}")

    def _serve(self, step: dict[str, Any]) -> None:
        client = self.client
        match step["server"]:
            case "accepts":
                client.connected(self._now)
            case "refuses" | "vanishes":
                client.disconnected(None, "", self._now)
            case "closes":
                client.disconnected(step["code"], "", self._now)
            case "hello":
                client.received(json.dumps(HELLO), self._now)
            case "ready":
                client.received(json.dumps(READY), self._now)
            case "says" if "text" in step:
                client.received(step["text"], self._now)
            case "says":
                frame = dict(step["frame"])
                if "ref" in frame:
                    frame["ref"] = self._refs.get(frame["ref"], frame["ref"])
                client.received(json.dumps(frame), self._now)
            case other:
                pytest.fail(f"unknown: {other}")

    def _pass(self, ms: float) -> None:
        end = self._now_ms + ms
        while (deadline := self.client.next_deadline()) is not None and round(deadline * 1_000) <= end:
            self._now_ms = max(self._now_ms, round(deadline * 1_000))
            self.client.handle_deadline(deadline)
            self._collect()
        self._now_ms = end

    def _collect(self) -> None:
        while (event := self.client.next_event()) is not None:
            self._told += shown(event, self._names)
        self._sent += [json.loads(message) for message in self.client.messages_to_send()]

    def _bound(self, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the frames with the client's refs in place of the script's. A new ref stands for that of the frame there."""
        bound = []
        for place, frame in enumerate(wanted):
            ref = frame.get("ref")
            if isinstance(ref, str) and ref not in self._refs and place < len(self._sent):
                self._refs[ref] = self._sent[place].get("ref")
            bound.append(frame | {"ref": self._refs.get(ref)} if isinstance(ref, str) else frame)
        return bound


def shown(event: told.ClientEvent, names: dict[int, str]) -> list[dict[str, Any]]:
    """Return an event in the notation of README.md."""
    match event:
        case told.Connect():
            return [{"connect": {}}]
        case told.Disconnect():
            return [{"disconnect": {}}]
        case told.TokenNeeded():
            return [{"token_needed": {}}]
        case told.Opened():
            return [{"opened": {}}]
        case told.Followed():
            return [
                {"followed": {name: getattr(event, name) for name in ("log", "epoch", "after", "head", "recovered")}}
            ]
        case told.FollowRefused():
            return [{"refused": {"log": event.log, "code": event.code}}]
        case told.Delivered():
            wire = json.loads(event.wire)
            return [{"event": {"log": event.log, "epoch": event.epoch, "seq": event.sequence, "event": wire}}]
        case told.HintReceived():
            return [{"ephemeral": {"log": event.log, "kind": event.kind, "data": json.loads(event.data)}}]
        case told.LogGone():
            return [{"gone": {"log": event.log, "code": event.code}}]
        case told.LogLagging():
            return [{"lagging": {"log": event.log, "head": event.head}}]
        case told.LogLive():
            return [{"live": {"log": event.log}}]
        case told.Answered():
            return [{"answered": {"as": names[event.ref], "result": event.result}}]
        case told.Refused():
            told_of = {"code": event.code, "retry_after_ms": event.retry_after_ms, "may_be_done": event.may_be_done}
            return [{"failed": {"as": names[event.ref], **told_of}}]
        case told.Interrupted():
            return [
                {"interrupted": {"retry_ms": None if event.retry_secs is None else round(event.retry_secs * 1_000)}}
            ]
        case told.Ended():
            return [{"ended": {"code": event.code}}]
    return []


@pytest.mark.parametrize("name", CASES)
def test_the_core_client(name: str) -> None:
    script = Script()
    for step in (*CASES[name]["steps"], {"told": []}, {"sent": []}):
        script.step(step)


@pytest.mark.parametrize("name", READ_MARKS)
def test_the_read_marks_of_the_core(name: str) -> None:
    marks: ReadMarks[str] = ReadMarks(lambda: 0.5)
    for step in READ_MARKS[name]["steps"]:
        now = step.get("at", 0) / 1_000
        match step:
            case {"add": [channel, sequence]}:
                marks.add(channel, sequence, f"{channel}{'null' if sequence is None else sequence}")
            case {"take": wanted}:
                mark = marks.take(now)
                assert (mark and [mark.channel_id, mark.sequence]) == wanted, step
            case {"answered": waiting}:
                assert marks.answered() == waiting
            case {"refused": waiting, "status": status}:
                advised = step["advised"] / 1_000 if "advised" in step else None
                assert marks.refused(status, advised, now) == waiting
            case {"unanswered": True}:
                marks.unanswered(now)
            case {"next": at}:
                due = marks.next_at()
                assert (due and round(due * 1_000)) == at
            case _:
                pytest.fail(f"unknown: {step}")


@pytest.fixture(scope="module")
def javascript() -> dict[str, Any]:
    """Return the JavaScript client's result for each case, None if it passes; and its tables."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("no node on this machine")
    done = subprocess.run([program, HERE / "run.mjs"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {f"{line['file']}: {line['name']}": line["problem"] for line in lines[:-1]} | {"tables": lines[-1]["tables"]}


@pytest.mark.parametrize("name", [*CASES, *READ_MARKS])
def test_the_javascript_client(name: str, javascript: dict[str, Any]) -> None:
    assert javascript[name] is None


def test_the_javascript_client_has_the_tables_of_the_core(javascript: dict[str, Any]) -> None:
    tables = javascript["tables"]
    assert tables["status"] == {code.spec.code: code.spec.status for code in ErrorCode}
    words = {AfterClose.RECONNECT: "reconnect", AfterClose.RENEWED: "token", AfterClose.FINAL: "final"}
    assert tables["GATEWAY_CLOSES"] == {str(code.value): words[row.action] for code, row in GATEWAY_CLOSES.items()}
    assert tables["transitions"] == {phase: dict(steps) for phase, steps in CLIENT_TRANSITIONS.items()}
    assert tables["deadlines"] == {phase: list(row.deadlines) for phase, row in CLIENT_PHASES.items()}
    assert set(tables["TEMPORARY_CODES"]) == TEMPORARY
    for name, value in {
        "BACKOFF_BASE_MS": limits.BACKOFF_BASE_SECS * 1_000, "BACKOFF_MAX_MS": limits.BACKOFF_MAX_SECS * 1_000,
        "HANDSHAKE_MS": limits.CLIENT_HANDSHAKE_SECS * 1_000, "SILENT_HEARTBEATS": limits.SERVER_SILENT_HEARTBEATS,
        "LOG_RETRY_MS": limits.PAGE_RETRY_SECS * 1_000, "DATABASE_PATIENCE_MS": limits.DATABASE_PATIENCE_SECS * 1_000,
        "MAX_LOGS": limits.MAX_GATEWAY_LOGS, "LINE_BYTES": LINE_BYTES,
        "MAX_TAIL": limits.MAX_TAIL_EVENTS,
        "MAX_HELD_FRAMES": limits.MAX_HELD_FRAMES, "MAX_PENDING_COMMANDS": limits.MAX_PENDING_COMMANDS,
        "REFRESH_AHEAD_MS": limits.REFRESH_AHEAD_SECS * 1_000, "READ_MARK_MS": limits.READ_MARK_SECS * 1_000,
    }.items():  # fmt: skip
        assert tables[name] == value, name


def test_the_cases_name_rules_of_the_protocol() -> None:
    rules = (HERE.parents[2] / "docs/protocol/gateway.md").read_text()
    assert all(f"**{case['rule']}**" in rules for case in CASES.values())
