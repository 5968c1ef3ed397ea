"""Each policy of the manifests fails on a manifest that violates it, and the rendered overlays violate none."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.support.scripts import script

policies = script("deploy/policies.py")
Manifests = dict[str, Any]


@pytest.fixture(scope="module")
def prod() -> list[Manifests]:
    if shutil.which("kubectl") is None and shutil.which("kustomize") is None:
        pytest.skip("neither kubectl nor kustomize on this machine")
    return list(yaml.safe_load_all(script("deploy/validate.py").kustomize("prod")))


def pod(found: Manifests) -> dict[str, Any]:
    found_pod: dict[str, Any] = found["Deployment"]["spec"]["template"]["spec"]
    return found_pod


def server(found: Manifests) -> dict[str, Any]:
    container: dict[str, Any] = pod(found)["containers"][0]
    return container


def volume(found: Manifests, name: str) -> dict[str, Any]:
    one: dict[str, Any]
    (one,) = [each for each in pod(found)["volumes"] if each["name"] == name]
    return one


BREAKS: dict[str, Callable[[Manifests], Any]] = {
    "may run as root": lambda found: pod(found)["securityContext"].pop("runAsNonRoot"),
    "has no seccomp profile": lambda found: pod(found)["securityContext"].pop("seccompProfile"),
    "gets a token of the API": lambda found: pod(found).pop("automountServiceAccountToken"),
    "has no service account of its own": lambda found: pod(found).pop("serviceAccountName"),
    "uses hostNetwork": lambda found: pod(found).update(hostNetwork=True),
    "is a path of the node": lambda found: volume(found, "run").update(hostPath={"path": "/"}),
    "volume run has no limit": lambda found: volume(found, "run").update(emptyDir={}),
    "is of an unknown secret": lambda found: volume(found, "secrets")["secret"].update(secretName="other"),
    "server: may gain privileges": lambda found: server(found)["securityContext"].update(privileged=True),
    "server: has capabilities": lambda found: server(found)["securityContext"].update(capabilities={"add": ["ALL"]}),
    "server: may write to its image": lambda found: server(found)["securityContext"].pop("readOnlyRootFilesystem"),
    "server: has no limits of memory": lambda found: server(found)["resources"].pop("limits"),
    "server: has no requests of cpu": lambda found: server(found)["resources"]["requests"].pop("cpu"),
    "server: its image has no version": lambda found: server(found).update(image="registry/openguild-server"),
    "mounts other, which is no volume": lambda found: server(found)["volumeMounts"][0].update(name="other"),
    "takes its environment from other": lambda found: server(found)["envFrom"][0]["configMapRef"].update(name="other"),
    "server: no livenessProbe": lambda found: server(found).pop("livenessProbe"),
    "readinessProbe asks port other": lambda found: server(found)["readinessProbe"]["httpGet"].update(port="other"),
    "no preStop": lambda found: server(found).pop("lifecycle"),
    "Service openguild-server: selects no pod": lambda found: found["Service"]["spec"]["selector"].update(other="x"),
    "port other is none of its pods'": lambda found: found["Service"]["spec"]["ports"][0].update(targetPort="other"),
    "an apply undoes what the autoscaler decided": lambda found: found["Deployment"]["spec"].update(replicas=3),
    "0 to 12 replicas": lambda found: found["HorizontalPodAutoscaler"]["spec"].update(minReplicas=0),
    "all of the 3 replicas may be taken": lambda found: found["PodDisruptionBudget"]["spec"].update(maxUnavailable=3),
    "no node can ever be drained": lambda found: found["PodDisruptionBudget"]["spec"].update(maxUnavailable=0),
    "takes a replica away before the next": lambda found: found["Deployment"]["spec"]["strategy"].pop("rollingUpdate"),
    "is served without TLS": lambda found: found["Ingress"]["spec"].pop("tls"),
    "sends requests to other": lambda found: found["Ingress"]["spec"]["rules"][0]["http"]["paths"][0]["backend"][
        "service"
    ].update(name="other"),
}


@pytest.mark.parametrize("overlay", ["dev", "staging", "prod"])
def test_the_overlays_keep_to_them(overlay: str, prod: list[Manifests]) -> None:
    assert policies.problems(list(yaml.safe_load_all(script("deploy/validate.py").kustomize(overlay)))) == []


@pytest.mark.parametrize("problem", BREAKS)
def test_a_break_is_told(problem: str, prod: list[Manifests]) -> None:
    broken = copy.deepcopy(prod)
    BREAKS[problem]({each["kind"]: each for each in reversed(broken)})
    assert [line for line in policies.problems(broken) if problem in line]
