"""What every rendered overlay must keep to, beyond the schemas: `python deploy/policies.py MANIFESTS...` (`make validate`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

TEMPLATES = {"Deployment": ("template",), "Job": ("template",), "CronJob": ("jobTemplate", "spec", "template")}
SECRETS = frozenset({"openguild-server", "openguild-probe"})  # made by hand, docs/operations.md
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
HOST_KEYS = ("hostNetwork", "hostPID", "hostIPC")


def problems(manifests: list[Manifest]) -> list[str]:
    """Return what breaks a policy; none is good."""
    found = {(each["kind"], each["metadata"]["name"]): each for each in manifests}
    pods = [(kind, name, _template(each)) for (kind, name), each in found.items() if kind in TEMPLATES]
    told: list[str] = []
    for kind, name, template in pods:
        told += [f"{kind} {name}: {problem}" for problem in _pod(kind, template["spec"], found)]
    told += [f"{problem}" for problem in _selectors(found, [template for _, _, template in pods])]
    told += [f"{problem}" for problem in _availability(found)]
    told += [f"{problem}" for problem in _ingresses(found)]
    return told


def _template(manifest: Manifest) -> Manifest:
    place: Manifest = manifest["spec"]
    for key in TEMPLATES[manifest["kind"]]:
        place = place[key]
    return place


def _pod(kind: str, pod: Manifest, found: dict[tuple[str, str], Manifest]) -> Iterator[str]:
    context = pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "may run as root"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "gets a token of the API"
    if ("ServiceAccount", pod.get("serviceAccountName", "default")) not in found:
        yield "has no service account of its own"
    yield from (f"uses {key}" for key in HOST_KEYS if pod.get(key))
    for volume in pod.get("volumes", ()):
        if "hostPath" in volume:
            yield f"volume {volume['name']} is a path of the node"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']} has no limit"
        if "secret" in volume and volume["secret"]["secretName"] not in SECRETS:
            yield f"volume {volume['name']} is of an unknown secret"
    volumes = {volume["name"] for volume in pod.get("volumes", ())}
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        yield from (f"{container['name']}: {problem}" for problem in _container(container, volumes, found))
    if kind == "Deployment":
        for container in pod["containers"]:
            yield from (f"{container['name']}: no {probe}" for probe in PROBES if probe not in container)
            if "preStop" not in container.get("lifecycle", {}):
                yield f"{container['name']}: no preStop: endpoints hear too late that it goes"


def _container(container: Manifest, volumes: set[str], found: dict[tuple[str, str], Manifest]) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("privileged") or context.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield "has capabilities"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "may write to its image"
    resources = container.get("resources", {})
    for key, name in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
        if name not in resources.get(key, {}):
            yield f"has no {key} of {name}"
    tag = container["image"].rpartition("/")[2].partition(":")[2]
    if tag in {"", "latest"}:
        yield "its image has no version"
    for mount in container.get("volumeMounts", ()):
        if mount["name"] not in volumes:
            yield f"mounts {mount['name']}, which is no volume"
    for source in container.get("envFrom", ()):
        name = source.get("configMapRef", {}).get("name")
        if ("ConfigMap", name) not in found:
            yield f"takes its environment from {name}, which is not there"
    ports = {port["name"] for port in container.get("ports", ())}
    for probe in PROBES:
        port = container.get(probe, {}).get("httpGet", {}).get("port")
        if port is not None and port not in ports:
            yield f"{probe} asks port {port}, which it has not"


def _selectors(found: dict[tuple[str, str], Manifest], templates: list[Manifest]) -> Iterator[str]:
    """Services, budgets and network policies select pods that there are; ports have names that those have."""
    for (kind, name), manifest in found.items():
        spec = manifest.get("spec", {})
        if kind == "Service":
            wanted = spec["selector"]
        elif kind in {"PodDisruptionBudget", "Deployment"}:
            wanted = spec["selector"]["matchLabels"]
        elif kind == "NetworkPolicy":
            wanted = spec["podSelector"].get("matchLabels", {})
        else:
            continue
        chosen = [each for each in templates if wanted.items() <= each["metadata"]["labels"].items()]
        if not chosen:
            yield f"{kind} {name}: selects no pod"
        if kind == "Service":
            ports = {
                port["name"]
                for each in chosen
                for container in each["spec"]["containers"]
                for port in container.get("ports", ())
            }
            for port in spec["ports"]:
                if port["targetPort"] not in ports:
                    yield f"{kind} {name}: port {port['targetPort']} is none of its pods'"


def _availability(found: dict[tuple[str, str], Manifest]) -> Iterator[str]:
    """A rollout takes nothing away; a drained node leaves a replica where there is more than one, and can be drained at all."""
    for (kind, name), manifest in found.items():
        spec = manifest.get("spec", {})
        if kind == "HorizontalPodAutoscaler":
            target = (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])
            if target not in found:
                yield f"{kind} {name}: scales {target[1]}, which is not there"
            elif "replicas" in found[target]["spec"]:
                yield f"{' '.join(target)}: an apply undoes what the autoscaler decided"
            if not 0 < spec["minReplicas"] <= spec["maxReplicas"]:
                yield f"{kind} {name}: {spec['minReplicas']} to {spec['maxReplicas']} replicas"
        elif kind == "PodDisruptionBudget":
            floor = found["HorizontalPodAutoscaler", name]["spec"]["minReplicas"]
            away = spec.get("maxUnavailable", floor - spec.get("minAvailable", 0))
            if away < 1:
                yield f"{kind} {name}: no node can ever be drained"
            elif floor > 1 and away >= floor:
                yield f"{kind} {name}: all of the {floor} replicas may be taken at once"
        elif kind == "Deployment" and spec["strategy"].get("rollingUpdate", {}).get("maxUnavailable") != 0:
            yield f"{kind} {name}: a rollout takes a replica away before the next one serves"


def _ingresses(found: dict[tuple[str, str], Manifest]) -> Iterator[str]:
    for (kind, name), manifest in found.items():
        if kind != "Ingress":
            continue
        hosts = {host for tls in manifest["spec"].get("tls", ()) for host in tls["hosts"]}
        for rule in manifest["spec"]["rules"]:
            if rule["host"] not in hosts:
                yield f"{kind} {name}: {rule['host']} is served without TLS"
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                target = found.get(("Service", service["name"]))
                if target is None or service["port"]["name"] not in {port["name"] for port in target["spec"]["ports"]}:
                    yield f"{kind} {name}: sends requests to {service['name']}, which is not there"


def main(files: list[str]) -> int:
    broken = [
        f"{Path(file).stem}: {problem}"
        for file in files
        for problem in problems([each for each in yaml.safe_load_all(Path(file).read_text()) if each is not None])
    ]
    sys.stdout.write("".join(f"{problem}\n" for problem in broken))
    return int(bool(broken))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
