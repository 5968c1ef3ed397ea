"""The manifests do what the playbook says: names, probes, gates, limits; and their configuration starts a server."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import openguild_runtime
from tests.support.scripts import script
from tests.support.server import ROOT, SIGNING_KEY, ServerProcess

DEPLOY = ROOT / "deploy"
NAMES = {"dev": "dev.openguild.local", "staging": "staging.api.openguild.dev", "prod": "api.openguild.com"}
overlays = pytest.mark.parametrize("overlay", NAMES)


@pytest.fixture(scope="module")
def rendered() -> dict[str, dict[tuple[str, str], Any]]:
    """For each overlay, (kind, name) to manifest."""
    if shutil.which("kubectl") is None and shutil.which("kustomize") is None:
        pytest.skip("neither kubectl nor kustomize on this machine")
    tool = script("deploy/validate.py")
    return {
        overlay: {
            (found["kind"], found["metadata"]["name"]): found for found in yaml.safe_load_all(tool.kustomize(overlay))
        }
        for overlay in NAMES
    }


def test_everything_that_can_be_checked_offline_is_good() -> None:
    done = subprocess.run([sys.executable, DEPLOY / "validate.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("ok  ") + done.stdout.count("skip") == 7


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
    wanted = {"PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy", "Ingress", "ServiceMonitor", "CronJob"}
    assert wanted <= {kind for kind, _ in found}


@overlays
def test_grace_covers_the_drain(overlay: str, rendered: dict[str, Any]) -> None:
    environment = environment_of(rendered[overlay])
    pod = rendered[overlay]["Deployment", "openguild-server"]["spec"]["template"]["spec"]
    pause = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = sum(int(environment[f"OPENGUILD_SERVER__DRAIN__{name}_SECS"]) for name in ("DELAY", "WINDOW"))
    assert pod["terminationGracePeriodSeconds"] >= pause + drain + 10


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
            assert not any("secret" in str(item).lower() for item in container.get("env", ())), "secrets come as files"


@overlays
def test_metrics_are_for_monitoring_only(overlay: str, rendered: dict[str, Any]) -> None:
    for rule in rendered[overlay]["NetworkPolicy", "openguild-server"]["spec"]["ingress"]:
        ports = [port["port"] for port in rule["ports"]]
        if "metrics" in ports:
            names = [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in rule["from"]]
            assert (ports, names) == (["metrics"], ["monitoring"])


def environment_of(found: dict[tuple[str, str], Any]) -> dict[str, str]:
    (data,) = [item["data"] for (kind, _), item in found.items() if kind == "ConfigMap"]
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
    assert (done.returncode, done.stdout) == (0, "The configuration is good\n"), done.stderr


def test_compose_has_the_whole_environment_in_order() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    assert {"postgres", "nats", "server", "prometheus", "alertmanager", "grafana"} <= services.keys()
    assert services["server"]["environment"]["OPENGUILD_SERVER__SERVER_NAME"] == "dev.openguild.local"
    assert services["server"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert "-js" in services["nats"]["command"]
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (DEPLOY / source).exists(), volume


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the version stands in."""
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
