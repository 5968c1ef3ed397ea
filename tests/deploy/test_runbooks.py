"""docs/runbooks.md agrees with the existing alerts, commands, metrics and causes. `make incidents` walks through it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from openguild_proto.errors import ErrorCode
from openguild_runtime.admin.reload import KEYS
from openguild_runtime.cli.main import build_parser
from openguild_runtime.observability.database_causes import CAUSES
from openguild_runtime.observability.metric_labels import NATS_FAULTS, NOT_AUTHENTICATED, REASONS
from tests.support.runbooks import PAGE, PARTS, Runbook, anchor_of, commands_of, inline_code, runbooks
from tests.support.server import ROOT, ServerProcess
from tests.support.waiting import free_port

RULES = ROOT / "deploy/observability/alerts/openguild.rules.yaml"
ONCALL = ROOT / "deploy/oncall.sh"
sections = pytest.mark.parametrize("runbook", runbooks().values(), ids=runbooks())
NOT_FIRED = {
    "OpenGuildProbeJobFails": "kube-state-metrics tells of the CronJob, and there is no cluster here",
    "OpenGuildProbeMissing": "kube-state-metrics tells of the CronJob, and there is no cluster here",
    "OpenGuildGapsStay": "a nats-server that loses messages cannot be had: it cuts off slow readers instead",
}  # alerts that no incident fires, and why; promtool does (deploy/observability/alerts/tests)


def alerts() -> dict[str, str]:
    """Return the anchor of each alert's link."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {
        rule["alert"]: rule["annotations"]["runbook_url"].partition("#")[2]
        for group in groups
        for rule in group["rules"]
        if "alert" in rule
    }


@sections
def test_a_section_has_its_parts_in_order(runbook: Runbook) -> None:
    names = list(runbook.parts)
    assert names == [name for name in PARTS if name in names]
    assert set(PARTS) - set(names) <= {"Fix"}, "a table may hold the fixes"
    assert runbook.ask
    assert runbook.rows or "cause" in runbook.parts["It means"]
    assert all(len(row) in {2, 3} and all(row) for row in runbook.rows), runbook.rows


def test_each_alert_leads_to_the_section_that_names_it() -> None:
    named = {alert: runbook.anchor for runbook in runbooks().values() for alert in runbook.alerts}
    assert named == alerts()
    assert sum(len(runbook.alerts) for runbook in runbooks().values()) == len(named), "each in one section only"


def test_links_to_sections_lead_somewhere() -> None:
    headings = {
        document: set(map(anchor_of, re.findall(r"^#+ (.*)$", (ROOT / "docs" / document).read_text(), re.MULTILINE)))
        for document in ("runbooks.md", "operations.md")
    }  # fmt: skip
    for path in sorted((ROOT / "docs").rglob("*.md")):
        for document, anchor in re.findall(
            r"\]\((?:\.\./)*((?:runbooks|operations)\.md)?#([\w-]+)\)", path.read_text()
        ):
            target = document or path.name
            assert anchor in headings.get(target, {anchor}), f"{path.name}: {target}#{anchor}"


def test_each_row_of_the_original_playbook_leads_to_a_section() -> None:
    table = (ROOT / "docs/operations.md").read_text().partition("## Line by line")[2]
    for row, anchors in {
        "high latency": ["high-http-latency"],
        "drops": ["messaging-drops"],
        "queue depth: find": ["queue-depth"],
        "auth failures": ["logins-fail", "tokens-refused"],
    }.items():
        (line,) = [line for line in table.splitlines() if line.startswith(f"| {row}")]
        assert re.findall(r"runbooks\.md#([\w-]+)", line) == anchors


def commands() -> list[str]:
    """Return every command of the page, including those in tables and sentences."""
    page = PAGE.read_text()
    blocks = commands_of(page)
    starts = ("og ", "og_one ", "openguild-server ", "ready", "logs", "metrics ", "sql ", "pg_ready", "kubectl ")
    return blocks + [line for line in inline_code(page) if line.startswith(starts) and "..." not in line]


def test_every_command_is_one(tmp_path: Path) -> None:
    """bash parses each command, and the arguments of openguild-server and jq are valid."""
    script = tmp_path / "commands.sh"
    filled = [re.sub(r"<[^<>|]+>", "PLACE", command) for command in commands()]
    assert len(filled) > 60
    script.write_text("\n".join(filled) + "\n")
    subprocess.run(["bash", "-n", script], check=True)
    parser, programs = build_parser(), []
    for command in filled:
        for words in re.findall(r"(?:^|[;&|] *)(?:og|og_one|openguild-server) ([^;|&]*)", command):
            parser.parse_args(shlex.split(words))  # exits for an unknown command
        programs += re.findall(r"jq (?:-\w+ )?'([^']*)'", command)
    assert len(programs) > 10
    together = "".join(f"def program{place}: {program};" for place, program in enumerate(programs)) + "empty"
    if shutil.which("jq") is not None:
        subprocess.run(["jq", "--null-input", together], check=True)


def test_what_the_page_names_exists() -> None:
    page = PAGE.read_text()
    exported = (ROOT / "docs/observability.md").read_text()
    for name in set(re.findall(r"\bopenguild_[a-z_]+[a-z]\b", page)) - {"openguild_runtime", "openguild_"}:
        assert re.search(rf"`{name}[_`]?", exported), name
    for key in re.findall(
        r"`((?:messaging|http|websocket|session|registration|database|search|presence|nats)\.\w+)`", page
    ):
        assert key in KEYS, key
    for panel in re.findall(r'the panel "([^"]+)"', page):
        assert f'"{panel}"' in (ROOT / "deploy/observability/grafana/dashboards/overview.json").read_text(), panel


def test_every_cause_has_a_fix() -> None:
    """Of the database, of NATS, of a 401."""
    found = runbooks()
    told = {anchor: set(re.findall(r"`(\w+)`", " ".join(row[0] for row in found[anchor].rows))) for anchor in found}
    assert CAUSES.keys() - told["database-away"] - told["writes-fail"] == set()
    assert set(NATS_FAULTS) - told["nats-refuses"] == set()
    assert set(NOT_AUTHENTICATED) - told["tokens-refused"] - told["logins-fail"] - {"bad_signature"} == set()
    for reason in told["unavailable"] | told["suspicious-requests"]:
        assert reason in REASONS, reason
    unavailable = {code.value.reason for code in ErrorCode if code.value.status == 503}
    assert unavailable <= told["unavailable"]
    assert unavailable <= told["rejections"], "its alert fires for them too: no client is at fault"


def test_quoted_log_lines_are_written_somewhere() -> None:
    source = " ".join(path.read_text() for path in (ROOT / "openguild_runtime").rglob("*.py"))
    source += " ".join(path.read_text() for path in (ROOT / "openguild_proto").rglob("*.py"))
    source = re.sub(r'"\s*f?"', "", source)
    for line in re.findall(r"`((?:a worker|no worker|a channel is|this machine's clock) [^`]+)`", PAGE.read_text()):
        assert line in source, line


def test_each_section_is_walked_and_each_alert_fires_in_an_incident() -> None:
    """The exceptions give a reason."""
    incidents = " ".join(path.read_text() for path in (ROOT / "tests/incidents").glob("*.py"))
    walked = set(re.findall(r'walk\("([\w-]+)"', incidents))
    assert walked == runbooks().keys()
    fired = set(re.findall(r'fires\(\s*"(\w+)"', incidents))
    assert fired & NOT_FIRED.keys() == set()
    assert fired | NOT_FIRED.keys() == alerts().keys()


def test_the_log_of_a_file_is_that_of_the_last_minutes(tmp_path: Path) -> None:
    """As with other sources: otherwise `logs 5` would never show that the incident is over."""
    if shutil.which("jq") is None:
        pytest.skip("no jq on this machine")
    log = tmp_path / "server.log"
    moments = [datetime.now(UTC) - timedelta(minutes=minutes) for minutes in (60, 10, 1)]
    lines = [json.dumps({"timestamp": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}) for moment in moments]
    log.write_text("\n".join([*lines, "Traceback:", "7"]) + "\n")
    for command, shown in (("logs", 2), ("logs 5", 1), ("logs 90", 3)):
        script = f". {ONCALL} http://127.0.0.1:1 {log}; {command}"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert len(done.stdout.splitlines()) == shown, (command, done.stdout)


def test_the_commands_of_the_page_are_defined(server: ServerProcess, tmp_path: Path) -> None:
    """On a host: `ready`, `logs` and `metrics` of a running server."""
    if shutil.which("jq") is None:
        pytest.skip("no jq on this machine")

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", f". {ONCALL} {server.base_url} {server.log_path}; {command}"],
            capture_output=True, text=True, check=True, cwd=tmp_path,
        )  # fmt: skip
        return done.stdout

    assert re.match(r"ready\n  database: configured .*\n", run("ready")), run("ready")
    assert json.loads(run("logs | head -1"))["message"]
    assert run("metrics openguild_build_info").startswith("openguild_build_info{")
    assert run("type -t og og_one ready logs metrics sql pg_ready").split() == ["function"] * 7
    assert "\n  drain: configured not draining\n" in run("ready") + "\n"


def test_commands_on_a_host_look_where_the_server_does(tmp_path: Path) -> None:
    """The metrics listener is separate and the URL is in a file; a missing file is reported, and not taken for an empty value."""
    (tmp_path / "database-url").write_text("postgresql://file.invalid/openguild")
    metrics_at = f"127.0.0.1:{free_port()}"
    with ServerProcess(tmp_path, STORAGE="memory", METRICS__BIND_ADDR=metrics_at).start() as server:

        def run(command: str, **settings: str) -> subprocess.CompletedProcess[str]:
            environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENGUILD_")}
            environment |= {f"OPENGUILD_SERVER__{name}": value for name, value in settings.items()}
            script = f". {ONCALL} {server.base_url}; {command}"
            return subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=False)

        found = run("metrics openguild_build_info", METRICS__BIND_ADDR=metrics_at)
        assert found.stdout.startswith("openguild_build_info{")
        missing = run("metrics openguild_build_info")
        assert (missing.returncode, missing.stdout) == (1, "")
        assert "export OPENGUILD_SERVER__METRICS__BIND_ADDR" in missing.stderr
    named = run("oncall_database", DATABASE_URL_FILE=str(tmp_path / "database-url"))
    assert named.stdout == "postgresql://file.invalid/openguild"


def test_without_a_url_no_database_is_asked(tmp_path: Path) -> None:
    """An unreadable secret gives an empty URL, with which libpq would use the local database."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("kubectl", "psql", "pg_dump", "pg_isready"):
        (programs / name).write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/called\n")
        (programs / name).chmod(0o755)
    (tmp_path / "backup").touch()
    (tmp_path / "empty-url").touch()
    oncall = ["bash", "-c", f'. {ONCALL} prod; "$@"', "bash"]
    for command in (
        [*oncall, "sql", "SELECT 1"],
        [*oncall, "pg_ready"],
        [ROOT / "deploy/restore.sh", tmp_path / "backup", tmp_path / "empty-url"],
        [ROOT / "deploy/backup.sh", tmp_path / "empty-url", tmp_path / "another"],
    ):
        environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        told = "no URL of a database: is it set, or in its file or secret?\n"
        assert (done.returncode, done.stderr) == (2, told), command
    assert set((tmp_path / "called").read_text().split()) == {"kubectl"}
