"""A pod as kubelet runs it: init containers, the container with its limits, probes, the preStop hook, the grace period."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.image.container import size_bytes
from tests.image.engine import Docker
from tests.pods.manifest import ContainerSpec, PodSpec, Probe
from tests.support.waiting import wait_until

START_SECS = 120.0  # only a failure takes it


class Node:
    """What pods need of the machine: the engine, the image, the network, the directory of the Secret, and where sizes are."""

    def __init__(self, docker: Docker, image: str, network: str, secrets: Path) -> None:
        self.docker = docker
        self.image = image
        self.network = network
        self.secrets = secrets

    def run(self, container: ContainerSpec, pod: PodSpec, *options: str) -> str:
        """Run a container of a pod, or one with the same restrictions; its id, or what it said if it is not detached."""
        security = container.security
        restrictions = [
            "--user", f"{pod.uid}:{pod.gid}", "--memory", str(size_bytes(container.memory)),
            *(part for name in security["capabilities"]["drop"] for part in ("--cap-drop", name)),
        ]  # fmt: skip
        if security["readOnlyRootFilesystem"]:
            restrictions.append("--read-only")
        if not security["allowPrivilegeEscalation"]:
            restrictions += ["--security-opt", "no-new-privileges"]
        for volume, place in container.mounts.items():
            size = pod.tmpfs.get(volume)
            if size is not None:
                restrictions += ["--tmpfs", f"{place}:mode=1777,size={size_bytes(size)}"]
            else:
                restrictions += ["--volume", f"{self.secrets}:{place}:ro"]
        environment = [part for name, value in container.environment.items() for part in ("--env", f"{name}={value}")]
        return self.docker(
            "run",
            "--no-healthcheck",
            "--network",
            self.network,
            *restrictions,
            *environment,
            *options,
            self.image,
            *container.args,
        )


class Pod:
    """`on_ready(pod, ready)` is told when the pod becomes ready or not, as the endpoints are."""

    def __init__(self, node: Node, spec: PodSpec, on_ready: Callable[[Pod, bool], None]) -> None:
        self._docker = node.docker
        self._spec = spec
        self._on_ready = on_ready
        self.is_ready = False
        self.ready_since = 0.0  # monotonic seconds
        self.liveness_failures = 0
        self.exit_code: int | None = None
        self._ending = threading.Event()
        for each in spec.init:
            node.run(each, spec, "--rm")
        self.id = node.run(spec.server, spec, "--detach")
        networks: dict[str, Any] = json.loads(
            self._docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", self.id)
        )
        self.address = str(networks[node.network]["IPAddress"])
        self._threads = [threading.Thread(target=self._probe_forever, daemon=True)]
        self._threads[0].start()

    # --- probes --------------------------------------------------------------------------------------

    def _probe_forever(self) -> None:
        spec = self._spec
        failures = 0
        while not self._passes(spec.startup):
            failures += 1
            if failures >= spec.startup.failure_threshold or self._ending.wait(spec.startup.period_secs):
                return
        live = threading.Thread(target=self._probe_liveness, daemon=True)
        live.start()
        self._threads.append(live)
        failures = 0
        while True:
            failures = 0 if self._passes(spec.readiness) else failures + 1
            if failures == 0 and not self.is_ready:
                self._set_ready(True)
            elif failures >= spec.readiness.failure_threshold and self.is_ready:
                self._set_ready(False)
            if self._ending.wait(spec.readiness.period_secs):
                return

    def _probe_liveness(self) -> None:
        while not self._ending.wait(self._spec.liveness.period_secs):
            self.liveness_failures = 0 if self._passes(self._spec.liveness) else self.liveness_failures + 1

    def _passes(self, probe: Probe) -> bool:
        url = f"http://{self.address}:{probe.port}{probe.path}"
        try:
            return httpx.get(url, timeout=probe.timeout_secs, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def _set_ready(self, is_ready: bool) -> None:
        self.is_ready = is_ready
        self.ready_since = time.monotonic()
        self._on_ready(self, is_ready)

    def wait_available(self, min_ready_secs: float) -> None:
        """Return once it has been ready for so long."""
        wait_until(
            lambda: self.is_ready and time.monotonic() - self.ready_since >= min_ready_secs,
            secs=START_SECS,
            what=self.output,
        )

    # --- the end -------------------------------------------------------------------------------------

    def end(self) -> None:
        """As `kubectl delete pod`: the hook, SIGTERM, and SIGKILL when the grace period, which includes the hook, is over."""
        began = time.monotonic()
        self._ending.set()
        self._docker("exec", self.id, *self._spec.pre_stop)
        left = max(0, int(self._spec.grace_secs - (time.monotonic() - began)))
        self._docker("stop", "--time", str(left), self.id)
        self.exit_code = int(self._docker("inspect", "--format", "{{.State.ExitCode}}", self.id))

    def remove(self) -> None:
        """Ask no probe any more, and remove the container, running or not."""
        self._ending.set()
        for thread in self._threads:
            thread.join()
        self._docker("rm", "--force", self.id)

    def output(self) -> str:
        """The end of its log."""
        return self._docker("logs", "--tail", "20", self.id)

    def messages(self) -> list[str]:
        """The messages of its log, which the engine keeps as JSON lines."""
        path = Path(self._docker("inspect", "--format", "{{.LogPath}}", self.id))
        return [json.loads(json.loads(line)["log"])["message"] for line in path.read_text().splitlines()]
