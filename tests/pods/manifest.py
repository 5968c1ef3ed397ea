"""What a rendered overlay says of its pods: command, environment, limits, probes, preStop, and how they are replaced."""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml

from tests.support.scripts import script

DEPLOYMENT = "openguild-server"


class Probe(NamedTuple):
    """An httpGet probe of kubelet; what the manifest leaves out has Kubernetes's default."""

    path: str
    port: int
    period_secs: float
    timeout_secs: float
    failure_threshold: int


class ContainerSpec(NamedTuple):
    """A container, as `docker run` is told."""

    args: list[str]
    environment: dict[str, str]
    memory: str
    mounts: dict[str, str]  # volume, directory
    security: dict[str, Any]


class PodSpec(NamedTuple):
    """The pods of the Deployment."""

    init: list[ContainerSpec]
    server: ContainerSpec
    startup: Probe
    readiness: Probe
    liveness: Probe
    pre_stop: list[str]
    grace_secs: float
    uid: int
    gid: int
    tmpfs: dict[str, str]  # volume, size


class Rollout(NamedTuple):
    """How the Deployment replaces its pods."""

    replicas: int  # the autoscaler's floor
    max_surge: int
    max_unavailable: int
    min_ready_secs: float


class Overlay:
    """The manifests of an overlay, rendered by kustomize."""

    def __init__(self, name: str) -> None:
        manifests = list(yaml.safe_load_all(script("deploy/validate.py").kustomize(name)))
        self._found = {(found["kind"], found["metadata"]["name"]): found for found in manifests}
        self._pod = self._deployment["template"]["spec"]

    @property
    def _deployment(self) -> dict[str, Any]:
        return dict(self._found["Deployment", DEPLOYMENT]["spec"])

    def rollout(self) -> Rollout:
        spec = self._deployment
        floor = self._found["HorizontalPodAutoscaler", DEPLOYMENT]["spec"]["minReplicas"]
        update = spec["strategy"]["rollingUpdate"]
        return Rollout(floor, update["maxSurge"], update["maxUnavailable"], spec["minReadySeconds"])

    def pod(self) -> PodSpec:
        pod = self._pod
        (server,) = pod["containers"]
        context = pod["securityContext"]
        return PodSpec(
            init=[self._container(each) for each in pod["initContainers"]],
            server=self._container(server),
            **{name: _probe(server, f"{name}Probe") for name in ("startup", "readiness", "liveness")},
            pre_stop=server["lifecycle"]["preStop"]["exec"]["command"],
            grace_secs=pod["terminationGracePeriodSeconds"],
            uid=context["runAsUser"],
            gid=context["runAsGroup"],
            tmpfs={each["name"]: each["emptyDir"]["sizeLimit"] for each in pod["volumes"] if "emptyDir" in each},
        )

    def migration(self) -> ContainerSpec:
        """Return the container of the Job that this release brings."""
        (job,) = [found for (kind, _), found in self._found.items() if kind == "Job"]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        return self._container(container)

    def _container(self, container: dict[str, Any]) -> ContainerSpec:
        environment: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            environment |= self._found["ConfigMap", source["configMapRef"]["name"]]["data"]
        environment |= {each["name"]: each["value"] for each in container.get("env", ())}
        return ContainerSpec(
            args=container.get("args", []),
            environment=environment,
            memory=container["resources"]["limits"]["memory"],
            mounts={mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]},
            security=container["securityContext"],
        )


def _probe(container: dict[str, Any], name: str) -> Probe:
    probe = container[name]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    return Probe(
        path=probe["httpGet"]["path"],
        port=ports[probe["httpGet"]["port"]],
        period_secs=probe.get("periodSeconds", 10),
        timeout_secs=probe.get("timeoutSeconds", 1),
        failure_threshold=probe.get("failureThreshold", 3),
    )
