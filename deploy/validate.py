"""`make validate`: everything under deploy/ that can be checked without a cluster, a registry or Docker, and the types in docs/web.

Tools that this machine does not have are skipped and named. Exit status 1 where one that ran found something.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
OVERLAYS = ("dev", "staging", "prod")


class Skipped(Exception):
    """A tool is missing."""


def tool(name: str) -> str:
    """Beside this Python, or on the path. Raises Skipped."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise Skipped(f"{name} is not on this machine")
    return found


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """What it says. Raises RuntimeError with it when it fails."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError((done.stdout + done.stderr).strip())
    return done.stdout


def dockerfile() -> None:
    run(tool("hadolint"), DEPLOY / "Dockerfile")


def yaml_files() -> None:
    run(tool("yamllint"), "--strict", "-c", DEPLOY / ".yamllint", DEPLOY)


def shell_scripts() -> None:
    for script in (*DEPLOY.glob("*.sh"), DEPLOY / "image/build.sh", DEPLOY / "ci/tools.sh"):
        shell = "bash" if "bash" in script.read_text().partition("\n")[0] else "sh"
        run(tool(shell), "-n", script)


def alert_rules() -> None:
    promtool, alerts = tool("promtool"), DEPLOY / "observability/alerts"
    run(promtool, "check", "rules", alerts / "openguild.rules.yaml")
    run(promtool, "test", "rules", "openguild.tests.yaml", cwd=alerts / "tests")


def prometheus_configuration() -> None:
    promtool = tool("promtool")
    with tempfile.TemporaryDirectory() as directory:
        configuration = (DEPLOY / "observability/prometheus/prometheus.yaml").read_text()
        here = configuration.replace("/etc/openguild-alerts", str(DEPLOY / "observability/alerts"))
        if here == configuration:
            raise RuntimeError("rule_files does not name /etc/openguild-alerts, where Compose puts the rules")
        (Path(directory) / "prometheus.yaml").write_text(here)
        said = run(promtool, "check", "config", Path(directory) / "prometheus.yaml")
    if "1 rule files found" not in said:
        raise RuntimeError(said)


def alertmanager_configuration() -> None:
    run(tool("amtool"), "check-config", DEPLOY / "observability/alertmanager/alertmanager.yaml")


def javascript_types() -> None:
    compiler = ROOT / "build/npm/node_modules/typescript/bin/tsc"
    if not compiler.exists():
        raise Skipped("build/npm has no typescript: deploy/ci/tools.sh installs it")
    run(tool("node"), compiler, "--project", ROOT / "docs/web")


CONTRACTS = (
    (r"\bDROP\s+(?!NOT\s+NULL|DEFAULT)\w+", "takes something away"),
    (r"\bRENAME\b", "renames"),
    (r"\bALTER\s+(COLUMN\s+)?\S+\s+(SET\s+DATA\s+)?TYPE\b", "changes a type"),
    (r"\bSET\s+NOT\s+NULL\b", "refuses what the release before may write"),
    (
        r"\bADD\s+(COLUMN\s+)?(?!CONSTRAINT|PRIMARY|UNIQUE|CHECK|FOREIGN)\w+\s(?![^,;]*\bDEFAULT\b)[^,;]*\bNOT\s+NULL\b",
        "needs a DEFAULT",
    ),
    (r"\bADD\s+(CONSTRAINT|PRIMARY|UNIQUE|CHECK|FOREIGN)\b", "refuses what the release before may write"),
    (r"\bTRUNCATE\b", "takes something away"),
    (r"\bCREATE\s+OR\s+REPLACE\b", "changes what the release before calls: give it a new name"),
    (r"\bop\.(drop|rename|alter)_\w+", "use SQL that only expands"),
)  # what a step after the first may not do: the release before it goes on serving (docs/operations.md, Migrations)


def contractions(text: str) -> list[str]:
    """What in a step's SQL takes away or changes something that the release before uses."""
    text = re.sub(r"--[^\n]*|#[^\n]*|'[^'\n]*'", "", text)
    words = [(re.search(pattern, text, re.IGNORECASE), problem) for pattern, problem in CONTRACTS]
    return [f"{' '.join(found[0].split())}: {problem}" for found, problem in words if found]


def migration_steps() -> None:
    steps = sorted((ROOT / "openguild_runtime/storage/migrations/versions").glob("v*.py"))
    problems = [f"{step.name}: {problem}" for step in steps[1:] for problem in contractions(step.read_text())]
    if problems:
        raise RuntimeError("\n".join(problems))


def kustomize(overlay: str) -> str:
    """The rendered manifests of one overlay. Raises Skipped."""
    if shutil.which("kustomize"):
        return run("kustomize", "build", DEPLOY / "k8s/overlays" / overlay)
    return run(tool("kubectl"), "kustomize", DEPLOY / "k8s/overlays" / overlay)


def manifests() -> None:
    validator = tool("kubernetes-validate")
    with tempfile.TemporaryDirectory() as directory:
        for overlay in OVERLAYS:
            rendered = Path(directory) / f"{overlay}.yaml"
            rendered.write_text(kustomize(overlay))
            run(validator, "--strict", rendered)


def policies() -> None:
    with tempfile.TemporaryDirectory() as directory:
        for overlay in OVERLAYS:
            (Path(directory) / f"{overlay}.yaml").write_text(kustomize(overlay))
        run(sys.executable, DEPLOY / "policies.py", *sorted(Path(directory).glob("*.yaml")))


def systemd_unit() -> None:
    name = "openguild-server.service"
    unit = (DEPLOY / "systemd" / name).read_text()
    unit = unit.replace("/opt/openguild/.venv/bin", str(Path(sys.executable).parent)).replace(
        "/opt/openguild", str(ROOT)
    )
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / name).write_text(unit)
        done = subprocess.run(
            [tool("systemd-analyze"), "verify", Path(directory) / name], capture_output=True, text=True, check=False
        )
    told = [
        line for line in done.stderr.splitlines() if name in line
    ]  # a warning too: a key it does not know has no effect
    if done.returncode != 0 or told:
        raise RuntimeError("\n".join(told) or done.stderr)


def custom_resources() -> None:
    python = ROOT / "build/python_tools/bin/python"
    if not python.exists():
        raise Skipped("build/python_tools has no models of them: deploy/ci/tools.sh installs them")
    with tempfile.TemporaryDirectory() as directory:
        for overlay in ("staging", "prod"):
            (Path(directory) / f"{overlay}.yaml").write_text(kustomize(overlay))
        run(python, DEPLOY / "custom_resources.py", *sorted(Path(directory).glob("*.yaml")))


def compose() -> None:
    ours = ROOT / "build/python_tools/bin/docker-compose"
    if ours.exists():
        run(ours, "-f", DEPLOY / "compose.yaml", "config", "--quiet")
        return
    docker = tool("docker")
    try:
        run(docker, "compose", "version")
    except RuntimeError:
        raise Skipped("docker has no compose plugin here, and deploy/ci/tools.sh has not installed one") from None
    run(docker, "compose", "-f", DEPLOY / "compose.yaml", "config", "--quiet")


CHECKS: tuple[Callable[[], None], ...] = (
    dockerfile, yaml_files, shell_scripts, alert_rules, prometheus_configuration, alertmanager_configuration, migration_steps,
    manifests, policies, systemd_unit, custom_resources, compose, javascript_types,
)  # fmt: skip


def main() -> int:
    failed = False
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            check()
        except Skipped as reason:
            sys.stdout.write(f"skip  {name}: {reason}\n")
        except RuntimeError as problem:
            failed = True
            sys.stdout.write(f"FAIL  {name}\n{problem}\n")
        else:
            sys.stdout.write(f"ok    {name}\n")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
