"""The manifests follow docs/operations.md: names, probes, gates, limits; and their configuration starts a server."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import tomllib
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

import openguild_runtime
from openguild_runtime.process.shutdown import SHUTDOWN_SECS
from tests.support.scripts import script
from tests.support.server import ROOT, SIGNING_KEY, ServerProcess

DEPLOY = ROOT / "deploy"
NAMES = {"dev": "dev.openguild.local", "staging": "staging.api.openguild.dev", "prod": "api.openguild.com"}
overlays = pytest.mark.parametrize("overlay", NAMES)


@pytest.fixture(scope="module")
def rendered() -> dict[str, dict[tuple[str, str], Any]]:
    """Return the manifests of each overlay by (kind, name)."""
    if shutil.which("kubectl") is None and shutil.which("kustomize") is None:
        pytest.skip("neither kubectl nor kustomize on this machine")
    tool = script("deploy/validate.py")
    return {
        overlay: {
            (found["kind"], found["metadata"]["name"]): found for found in yaml.safe_load_all(tool.kustomize(overlay))
        }
        for overlay in NAMES
    }


@overlays
def test_the_deployment_is_as_the_playbook_calls_it(overlay: str, rendered: dict[str, Any]) -> None:
    found = rendered[overlay]
    deployment = found["Deployment", "openguild-server"]
    assert deployment["metadata"]["namespace"] == overlay
    pod = deployment["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    assert server["image"] == f"registry/openguild-server:v{openguild_runtime.__version__}"
    paths = {name: server[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {"startupProbe": "/live", "readinessProbe": "/ready", "livenessProbe": "/live"}
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert pod["initContainers"][0]["args"] == ["migrate", "--wait"]
    version = openguild_runtime.__version__.replace(".", "-")
    job = found["Job", f"openguild-migrate-v{version}"]
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == server["image"]
    assert {"PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy", "Ingress", "CronJob"} <= {
        kind for kind, _ in found
    }
    assert "replicas" not in deployment["spec"], "the autoscaler's: an apply would set the fleet back"
    assert found["PodDisruptionBudget", "openguild-server"]["spec"].keys() & {"minAvailable", "maxUnavailable"} == {
        "maxUnavailable"
    }


def test_only_what_has_the_operator_asks_for_its_kinds(rendered: dict[str, Any]) -> None:
    """An unknown kind makes the whole apply fail. With the component, rules and dashboard match deploy/observability."""
    foreign = {
        overlay: {found["kind"] for found in manifests.values() if "monitoring.coreos.com" in found["apiVersion"]}
        for overlay, manifests in rendered.items()
    }
    assert foreign == {
        "dev": set(), "staging": {"ServiceMonitor", "PrometheusRule"}, "prod": {"ServiceMonitor", "PrometheusRule"},
    }  # fmt: skip
    for overlay in ("staging", "prod"):
        found = rendered[overlay]
        rules = yaml.safe_load((DEPLOY / "observability/alerts/openguild.rules.yaml").read_text())
        assert found["PrometheusRule", "openguild-server"]["spec"] == rules
        dashboard = found["ConfigMap", "openguild-dashboard"]
        assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert dashboard["data"] == {
            "overview.json": (DEPLOY / "observability/grafana/dashboards/overview.json").read_text()
        }


def test_the_operators_rules_are_written_from_the_others() -> None:
    module = script("deploy/observability/prometheus_rule.py")
    assert module.TARGET.read_text() == module.text(), "run: python deploy/observability/prometheus_rule.py"


@overlays
def test_an_edit_of_the_settings_leaves_the_job_alone(overlay: str, rendered: dict[str, Any], tmp_path: Path) -> None:
    """A Job's template is immutable: `kubectl apply -k` would fail."""
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    with (tmp_path / "deploy/k8s/overlays" / overlay / "server.env").open("a") as settings:
        settings.write("OPENGUILD_SERVER__MESSAGING__REPLAY_WINDOW=10\n")
    done = subprocess.run(
        ["kubectl", "kustomize", tmp_path / "deploy/k8s/overlays" / overlay], capture_output=True, text=True, check=True
    )
    edited = {(found["kind"], found["metadata"]["name"]): found for found in yaml.safe_load_all(done.stdout)}
    (key,) = [key for key in edited if key[0] == "Job"]
    assert edited[key] == rendered[overlay][key]
    assert edited["Deployment", "openguild-server"] != rendered[overlay]["Deployment", "openguild-server"]


def test_the_migration_job_has_all_that_it_needs(rendered: dict[str, Any], tmp_path: Path, empty_url: str) -> None:
    (job,) = [found for (kind, _), found in rendered["prod"].items() if kind == "Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (tmp_path / "database-url").write_text(empty_url)
    settings = {
        line["name"].removeprefix("OPENGUILD_SERVER__"): line["value"].replace("/run/secrets/openguild", str(tmp_path))
        for line in container["env"]
    }
    done = ServerProcess(tmp_path, without=("SESSION__SIGNING_KEY",), **settings).run_command(*container["args"])
    assert (done.returncode, done.stderr) == (0, "")


@overlays
def test_traces_may_leave_for_the_collector(overlay: str, rendered: dict[str, Any]) -> None:
    rules = rendered[overlay]["NetworkPolicy", "openguild-server"]["spec"]["egress"]
    (found,) = [rule for rule in rules if {4317, 4318} <= {port["port"] for port in rule["ports"]}]
    assert found["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def test_other_homeservers_are_reached_where_an_environment_federates(
    rendered: dict[str, dict[tuple[str, str], Any]], tmp_path: Path
) -> None:
    name = ("NetworkPolicy", "openguild-server-federation")
    assert all(name not in found for found in rendered.values()), "federation is off"
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    kustomization = tmp_path / "deploy/k8s/overlays/prod/kustomization.yaml"
    kustomization.write_text(
        kustomization.read_text().replace("components:\n", "components:\n  - ../../components/federation\n")
    )
    done = subprocess.run(["kubectl", "kustomize", kustomization.parent], capture_output=True, text=True, check=True)
    found = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout)}
    assert found.keys() - rendered["prod"].keys() == {name}
    policy = found[name]["spec"]
    labels = found["Deployment", "openguild-server"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    (rule,) = policy["egress"]
    assert [port["port"] for port in rule["ports"]] == [443]
    closed = [ip_network(block) for peer in rule["to"] for block in peer["ipBlock"]["except"]]
    for private in ("10.1.2.3", "127.0.0.1", "169.254.169.254", "192.168.0.1", "::1", "fd00::1", "fe80::1"):
        assert any(ip_address(private) in block for block in closed if block.version == ip_address(private).version), (
            private
        )
    assert script("deploy/policies.py").problems(list(found.values())) == []


@overlays
def test_a_certificate_is_asked_of_somebody_who_can_sign_it(overlay: str, rendered: dict[str, Any]) -> None:
    ingress = rendered[overlay]["Ingress", "openguild-server"]
    public = not NAMES[overlay].endswith(".local")
    issuer = ingress["metadata"]["annotations"]["cert-manager.io/cluster-issuer"]
    assert issuer == ("letsencrypt" if public else "private-ca")
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "3600"


@overlays
def test_grace_covers_the_drain(overlay: str, rendered: dict[str, Any]) -> None:
    environment = environment_of(rendered[overlay])
    pod = rendered[overlay]["Deployment", "openguild-server"]["spec"]["template"]["spec"]
    pause = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = sum(int(environment[f"OPENGUILD_SERVER__DRAIN__{name}_SECS"]) for name in ("DELAY", "WINDOW"))
    assert pod["terminationGracePeriodSeconds"] >= pause + drain + 10


@overlays
def test_liveness_outlasts_a_drain_that_kubelet_did_not_ask_for(overlay: str, rendered: dict[str, Any]) -> None:
    """During the window of `admin drain` nobody listens, and the container must not be killed."""
    (server,) = rendered[overlay]["Deployment", "openguild-server"]["spec"]["template"]["spec"]["containers"]
    liveness = server["livenessProbe"]
    window = int(environment_of(rendered[overlay])["OPENGUILD_SERVER__DRAIN__WINDOW_SECS"])
    assert (liveness["failureThreshold"] - 1) * liveness["periodSeconds"] >= window + SHUTDOWN_SECS


@overlays
def test_every_container_is_restricted(overlay: str, rendered: dict[str, Any]) -> None:
    for (kind, _), found in rendered[overlay].items():
        template = {
            "Deployment": ["template"],
            "Job": ["template"],
            "CronJob": ["jobTemplate", "spec", "template"],
        }.get(kind)
        if template is None:
            continue
        pod = found["spec"]
        for key in template:
            pod = pod[key]
        pod = pod["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 1000
        assert pod["automountServiceAccountToken"] is False
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            context = container["securityContext"]
            assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (True, False)
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "limits" in container["resources"]
            assert not any("valueFrom" in item for item in container.get("env", ())), "secrets come as files"


@overlays
def test_metrics_are_for_monitoring_only(overlay: str, rendered: dict[str, Any]) -> None:
    for rule in rendered[overlay]["NetworkPolicy", "openguild-server"]["spec"]["ingress"]:
        ports = [port["port"] for port in rule["ports"]]
        if "metrics" in ports:
            names = [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in rule["from"]]
            assert (ports, names) == (["metrics"], ["monitoring"])


def environment_of(found: dict[tuple[str, str], Any]) -> dict[str, str]:
    (data,) = [
        item["data"] for (kind, name), item in found.items() if kind == "ConfigMap" and name != "openguild-dashboard"
    ]
    return data


@overlays
def test_its_configuration_is_one_that_the_server_takes(overlay: str, rendered: dict[str, Any], tmp_path: Path) -> None:
    environment = environment_of(rendered[overlay])
    assert environment["OPENGUILD_SERVER__SERVER_NAME"] == NAMES[overlay]
    (rule,) = rendered[overlay]["Ingress", "openguild-server"]["spec"]["rules"]
    assert rule["host"] == NAMES[overlay]
    secrets = {"database-url": "postgresql://u:p@db/x", "nats-url": "nats://nats:4222", "signing-key": SIGNING_KEY}
    for name, text in secrets.items():
        (tmp_path / name).write_text(text)
    settings = {
        key.removeprefix("OPENGUILD_SERVER__"): value.replace("/run/secrets/openguild", str(tmp_path))
        for key, value in environment.items() if key.startswith("OPENGUILD_SERVER__")
    }  # fmt: skip
    process = ServerProcess(tmp_path, without=("SESSION__SIGNING_KEY",), **settings)
    done = process.run_command("config", "check")
    assert (done.returncode, done.stdout) == (0, "The configuration is valid\n"), done.stderr


@overlays
def test_limits_are_divided_by_the_replicas_that_there_are_at_least(overlay: str, rendered: dict[str, Any]) -> None:
    """A replica that starts while NATS is away sees no other replica."""
    found = rendered[overlay]
    (settings,) = [
        found[key]["data"] for key in found if key[0] == "ConfigMap" and key[1].startswith("openguild-server")
    ]
    least = found["HorizontalPodAutoscaler", "openguild-server"]["spec"]["minReplicas"]
    assert int(settings.get("OPENGUILD_SERVER__NATS__MIN_REPLICAS", 1)) == least


def test_compose_has_the_whole_environment_in_order() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    assert {"postgres", "nats", "server", "prometheus", "alertmanager", "grafana"} <= services.keys()
    assert services["server"]["environment"]["OPENGUILD_SERVER__SERVER_NAME"] == "dev.openguild.local"
    assert services["server"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert "-js" in services["nats"]["command"]
    assert "127.0.0.1" in services["postgres"]["healthcheck"]["test"], "not while the cluster is made"
    assert services["migrate"]["restart"].startswith("on-failure")
    assert services["server"]["environment"]["OPENGUILD_SERVER__ADMIN_SOCKET"]
    for name, needs in (("prometheus", {"server", "alertmanager"}), ("grafana", {"prometheus"})):
        assert services[name]["depends_on"] == {need: {"condition": "service_healthy"} for need in needs}, name
    for name in services.keys() - {"keys", "migrate"}:
        assert services[name]["restart"] == "unless-stopped", name
        assert services[name]["healthcheck"], name
    for service in services.values():
        assert re.search(r":(dev|v?\d+\.\d+)", service["image"]), "an exact version"
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (DEPLOY / source).exists(), volume


def test_no_mount_of_compose_lies_within_a_read_only_one() -> None:
    """Docker would have to create the mount point in it, and cannot."""
    for name, service in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].items():
        mounts = [volume.split(":") for volume in service.get("volumes", ())]
        for _, outer, *mode in mounts:
            inner = [target for _, target, *_ in mounts if target.startswith(outer.rstrip("/") + "/")]
            assert not (inner and mode == ["ro"]), (name, outer, inner)


def test_compose_gives_prometheus_the_rules_that_it_reads() -> None:
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["prometheus"]
    mounted = {volume.split(":")[1]: DEPLOY / volume.split(":")[0] for volume in service["volumes"]}
    configuration = yaml.safe_load((DEPLOY / "observability/prometheus/prometheus.yaml").read_text())
    for pattern in configuration["rule_files"]:
        directory, _, name = pattern.rpartition("/")
        assert list(mounted[directory].glob(name)), pattern
    variable = configuration["global"]["external_labels"]["runbooks"].strip("${}")
    assert re.fullmatch(r"\$\{OPENGUILD_RUNBOOKS:-https://.+\}", service["environment"][variable])


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the files that contain the version."""
    copy = tmp_path / "checkout"
    (copy / "deploy").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", copy)
    shutil.copy(DEPLOY / "set-version.sh", copy / "deploy")
    shutil.copytree(DEPLOY / "k8s", copy / "deploy/k8s")
    return copy


@pytest.mark.parametrize("version", ["9.8.7", "9.8.7rc1"])
def test_the_version_comes_from_one_place(checkout: Path, version: str) -> None:
    subprocess.run([checkout / "deploy/set-version.sh", f"v{version}"], check=True)
    assert tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["version"] == version
    for overlay in NAMES:
        text = (checkout / "deploy/k8s/overlays" / overlay / "kustomization.yaml").read_text()
        assert re.findall(r"v9[.-]8[.-]7\w*", text) == [f"v{version}", f"v{version.replace('.', '-')}"]
    here = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'"{here}"' not in (ROOT / "openguild_runtime/__init__.py").read_text()
    assert openguild_runtime.__version__ == importlib.metadata.version("openguild") == here


JUNK = [
    "latest",
    "0.2.0",
    "v0.2",
    "v0.2.0 beta",
    "v0.2.0+b1",
    "v0.2.0-RC1",
    "v0.2.0RC1",
    "v0.2.0/x",
    "v01.2.0",
    "v0.2.0\nv0.3.0",
    "",
]


@pytest.mark.parametrize("arguments", [[], ["v0.2.0", "v0.3.0"], *([text] for text in JUNK)], ids=repr)
def test_what_is_no_version_changes_nothing(checkout: Path, arguments: list[str]) -> None:
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    done = subprocess.run([checkout / "deploy/set-version.sh", *arguments], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr[:6], len(done.stderr.splitlines())) == (2, "usage:", 1)
    assert {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()} == before
