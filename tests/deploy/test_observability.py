"""Rules and dashboard against the metrics that the server exports; with a real Prometheus, if the machine has one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard as GrafanaDashboard

from openguild_runtime.cli.probe_slo import SERVER_FAULTS
from openguild_runtime.embedded import EmbeddedNats
from tests.support.prometheus import OBSERVABILITY, RULES, Prometheus
from tests.support.raw import UPGRADE, RawClient
from tests.support.runbooks import runbooks
from tests.support.scripts import script
from tests.support.server import ROOT, ServerProcess
from tests.support.waiting import free_port, wait_until

DASHBOARD = "deploy/observability/grafana/dashboard.py"
METRIC = re.compile(r"\b(?:openguild|process)_[a-z0-9_]+")
OURS = re.compile(r"\bnamespace_job(?:_route)?:[a-z0-9_:]+")
FROM_FILES = frozenset(
    {
        "openguild_probe_success",
        "openguild_probe_timestamp_seconds",
        "openguild_probe_certificate_expiry_timestamp_seconds",
        "openguild_backup_success",
        "openguild_backup_timestamp_seconds",
    }
)  # written by `probe --prometheus` and `backup.sh`


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def exported(server: ServerProcess) -> dict[str, set[str]]:
    """Return every series name that a server in use exports, with its labels."""
    chat = server.chat()
    alice = chat.user()
    channel = alice.channel(alice.guild())
    with alice.stream(channel):
        alice.say(channel, "x")
    chat.http.get("/users/me")
    text = httpx.get(server.base_url + "/metrics", trust_env=False, verify=False).text
    names: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            names.setdefault(line.split()[2], set())
        elif not line.startswith("#"):
            name, _, labels = line.rpartition(" ")[0].partition("{")
            names.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))
    names["openguild_worker_up"] = {"worker"}  # only with `--workers`: `siblings.merge` adds it
    return names


def test_every_panel_asks_for_what_is_exported(exported: dict[str, set[str]]) -> None:
    for _, panel in script(DASHBOARD).panels():
        for query, legend in panel.queries:
            ours = [name for name in METRIC.findall(query) if name not in FROM_FILES]
            assert set(ours) <= exported.keys(), panel.title
            grouped = {word for group in re.findall(r"\b(?<!on )by \(([^)]*)\)", query) for word in group.split(", ")}
            known = set().union(*(exported[name] for name in ours))
            assert grouped <= known | {"namespace", "instance", "channel_id", "server", "standby", "by"}, panel.title
            assert set(re.findall(r"{{(\w+)}}", legend)) <= grouped, panel.title
            chosen = 'namespace=~"$environment", instance=~"$instance"'
            assert query.count(chosen) == len(ours) + len(re.findall(r"\bup{", query)), panel.title
            assert "$environment" in query, panel.title


def test_every_panel_has_a_description_and_a_runbook() -> None:
    for _, panel in script(DASHBOARD).panels():
        assert panel.description
        assert panel.runbook in runbooks() or (panel.title, panel.runbook) == ("Firing alerts", "")


def test_the_dashboard_file_is_its_table() -> None:
    module = script(DASHBOARD)
    assert module.TARGET.read_text() == module.text(), "run: python deploy/observability/grafana/dashboard.py"
    built = json.loads(module.text())
    assert (built["uid"], built["title"]) == ("openguild-overview", "OpenGuild Overview")
    assert len({panel["id"] for panel in built["panels"]}) == len(built["panels"]) > 40
    assert [line["name"] for line in built["templating"]["list"]] == ["environment", "instance", "runbooks"]
    assert [line["name"] for line in built["annotations"]["list"]] == ["Deploys"]
    first = [panel["title"] for panel in built["panels"] if panel["gridPos"]["y"] == 1]
    assert first == ["Firing alerts", "Ready", "Last synthetic check", "Certificate ends in", "Last backup"]
    assert sum(panel["gridPos"]["w"] for panel in built["panels"][1:6]) == 24


def test_grafanas_schema_knows_every_member_of_the_dashboard() -> None:
    """Decoding with Grafana's generated types and encoding again would lose any member or value that they lack."""
    register_default_plugins()
    built = json.loads((OBSERVABILITY / "grafana/dashboards/overview.json").read_text())
    for name in ("titleFormat", "useValueForTime", "step"):  # members of the data source
        del built["annotations"]["list"][0][name]
    read = GrafanaDashboard.from_json(json.loads(json.dumps(built)))
    assert json.loads(JSONEncoder().encode(read)) == built


def test_every_expression_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool on this machine")
    module = script(DASHBOARD)
    chosen = {"$environment": ".*", "$instance": ".*", "$__rate_interval": "1m"}
    expressions = [query for _, panel in module.panels() for query, _ in panel.queries]
    expressions.append(module.DEPLOYS.replace("{{$}}", ""))
    rules = []
    for place, expression in enumerate(expressions):
        for name, value in chosen.items():
            expression = expression.replace(name, value)
        rules.append({"record": f"panel:{place}", "expr": expression})
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_asks_for_what_is_exported(exported: dict[str, set[str]]) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        for name in METRIC.findall(re.sub(OURS, "", rule["expr"])):
            assert name in exported or name in FROM_FILES, f"{rule.get('alert')}: {name}"
        assert set(OURS.findall(rule["expr"])) <= recorded


def test_every_alert_has_a_severity_a_runbook_and_tests() -> None:
    runbooks = (ROOT / "docs/runbooks.md").read_text()
    anchors = {re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
               for line in runbooks.splitlines() if line.startswith("#")}  # fmt: skip
    tested = yaml.safe_load((OBSERVABILITY / "alerts/tests/openguild.tests.yaml").read_text())["tests"]
    names = {test["name"] for test in tested}
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in {"page", "warning", "info"}
            document, _, anchor = rule["annotations"]["runbook_url"].partition("#")
            assert document == "{{ $externalLabels.runbooks }}/runbooks.md", "a link that works from Alertmanager"
            assert anchor in anchors, anchor
            assert {f"{rule['alert']} fires", f"{rule['alert']} does not"} <= names


def test_no_rule_throws_environments_together() -> None:
    """Aggregations keep the namespace, which decides who is paged and for what."""
    for rule in rules():
        for group in re.findall(r"(?<!label_)\b(?:sum|max|min|count|group)\s*(?:by \(([^)]*)\))?\s*\(", rule["expr"]):
            assert "namespace" in group.split(", "), rule


def test_one_list_says_what_the_servers_faults_are() -> None:
    recorded = [rule["expr"] for rule in rules() if "error_ratio" in rule.get("record", "")]
    assert len(recorded) == 4
    for expression in recorded:
        assert re.findall(r'status=~"([^"]*)"', expression) == ["|".join(sorted(SERVER_FAULTS))]


def receiver_of(labels: dict[str, str]) -> str:
    """Return the receiver by Alertmanager's rule: the first route whose matchers all match, else the root."""
    route = yaml.safe_load((OBSERVABILITY / "alertmanager/alertmanager.yaml").read_text())["route"]
    for child in route["routes"]:
        matchers = [re.fullmatch(r'(\w+)(=~?)"(.*)"', text) for text in child["matchers"]]
        if all(
            re.fullmatch(found[3] if found[2] == "=~" else re.escape(found[3]), labels.get(found[1], ""))
            for found in matchers
            if found
        ):
            return str(child["receiver"])
    return str(route["receiver"])


def test_development_does_not_page() -> None:
    for severity in ("page", "warning", "info"):
        for namespace in ("dev", "compose"):
            assert receiver_of({"namespace": namespace, "severity": severity}) == "quiet"
    for namespace in ("staging", "prod", ""):
        assert receiver_of({"namespace": namespace, "severity": "page"}) == "page"
        assert receiver_of({"namespace": namespace, "severity": "warning"}) == "ticket"
    found = yaml.safe_load((OBSERVABILITY / "alertmanager/alertmanager.yaml").read_text())
    assert "namespace" in found["route"]["group_by"]
    assert all("namespace" in rule["equal"] for rule in found["inhibit_rules"])


def test_real_prometheus_fires_for_a_stopped_reader_and_resolves(
    new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("no Prometheus on this machine")
    metrics_port = free_port()
    server = ServerProcess(
        tmp_path, DATABASE_URL=new_database(), NATS__URL=nats_server.url,
        METRICS__BIND_ADDR=f"127.0.0.1:{metrics_port}", WEBSOCKET__WRITE_TIMEOUT_SECS=120,
    )  # fmt: skip
    with server.start():
        prometheus = Prometheus(tmp_path, f"127.0.0.1:{metrics_port}")
        try:
            prometheus.wait_scrapes()
            loaded = prometheus.get("/api/v1/rules")["groups"]
            assert sum(len(group["rules"]) for group in loaded) == len(rules())
            _stop_reading_until_it_fires(server, prometheus)
        finally:
            prometheus.stop()
        assert server.stop() == 0, server.tail()


def _stop_reading_until_it_fires(server: ServerProcess, prometheus: Prometheus) -> None:
    alice = server.chat().user()
    channel = alice.channel(alice.guild())
    with RawClient(server.port, receive_bytes=4_096) as reader:  # a small receive buffer, so that the stream stalls
        reader.send(f"GET /channels/{channel}/ws HTTP/1.1\r\nAuthorization: Bearer {alice.token}\r\n".encode())
        reader.send(UPGRADE + b"\r\n")
        assert reader.answer().status == 101
        while _depth(prometheus, channel) <= 196:
            for _ in range(25):
                alice.say(channel, "y" * 4_000)
        wait_until(lambda: prometheus.alert("OpenGuildQueueDepthHigh") == "firing", secs=30, what="the alert")
    wait_until(lambda: prometheus.alert("OpenGuildQueueDepthHigh") == "", secs=30, what="its end")


def _depth(prometheus: Prometheus, channel: str) -> float:
    target = prometheus.get("/api/v1/targets?state=active")["activeTargets"][0]["scrapeUrl"]
    text = httpx.get(target, trust_env=False, verify=False).text
    found = re.search(rf'openguild_websocket_queue_depth{{channel_id="{channel}"}} (\S+)', text)
    return float(found[1]) if found else 0.0


def test_vector_takes_over_what_a_record_has() -> None:
    """Vector's templates would render a missing member as `<null>`."""
    source = yaml.safe_load((OBSERVABILITY / "logs/vector.yaml").read_text())["transforms"]["records"]["source"]
    taken = re.findall(r"^(.*)\.(\w+) = record\.(\w+)", source, re.MULTILINE)
    assert {name for _, name, _ in taken} == {"request_id", "level", "message"}
    for before, name, member in taken:
        assert (name, before.strip()) == (member, f"if exists(record.{member}) {{")


INSTANCE = {"namespace": "prod", "job": "openguild-server", "instance": "a:9100"}
DOWN = {"alertname": "OpenGuildDown", "severity": "page", **INSTANCE}
HEARD: list[tuple[dict[str, str], bool]] = [
    ({"alertname": "OpenGuildLoopStalls", "severity": "warning", **INSTANCE}, False),
    ({"alertname": "OpenGuildLoopStalls", "severity": "warning", **INSTANCE, "instance": "b:9100"}, True),
    ({"alertname": "OpenGuildLoopStalls", "severity": "warning", **INSTANCE, "namespace": "staging"}, True),
    (
        {
            "alertname": "OpenGuildUnavailableRaised",
            "severity": "warning",
            "namespace": "prod",
            "job": "openguild-server",
        },
        True,
    ),
    ({"alertname": "OpenGuildProbeMissing", "severity": "warning", "namespace": "prod"}, True),
    ({"alertname": "OpenGuildDatabaseAway", "severity": "page", **INSTANCE}, True),
]  # besides OpenGuildDown and the alerts about alerting itself


def test_real_alertmanager_mutes_what_an_instance_that_is_down_says_and_nothing_else(tmp_path: Path) -> None:
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if program is None:
        pytest.skip("no Alertmanager on this machine")
    port = free_port()
    with (tmp_path / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen(
            [program, f"--config.file={OBSERVABILITY}/alertmanager/alertmanager.yaml", f"--storage.path={tmp_path}/data",
             f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="], stdout=log, stderr=log,
        )  # fmt: skip
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False) as client:

        def ready() -> bool:
            try:
                return client.get("/-/ready").status_code == 200
            except httpx.TransportError:
                return False

        try:
            wait_until(ready, secs=20, what="Alertmanager")
            alerts = [{"labels": labels} for labels in (DOWN, *(labels for labels, _ in HEARD))]
            client.post("/api/v2/alerts", json=alerts).raise_for_status()
            wait_until(lambda: len(client.get("/api/v2/alerts").json()) == len(alerts), what="the alerts")
            muted = [alert["labels"] for alert in client.get("/api/v2/alerts").json() if alert["status"]["inhibitedBy"]]
        finally:
            process.terminate()
            process.wait()
    assert muted == [labels for labels, heard in HEARD if not heard]
