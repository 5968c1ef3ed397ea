"""A stand-in for kubectl, with the commands of docs/runbooks.md. Its pods are the test's servers, listed in $ONCALL_STATE."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

MINUTE_SECS = 4.0


def main(arguments: list[str]) -> int:
    state = json.loads(Path(os.environ["ONCALL_STATE"]).read_text())
    pods = state["pods"]
    verb = arguments[0]
    if verb == "get" and arguments[1] == "pods":
        show = list_addresses if "-o" in arguments else list_pods
        show(pods)
    elif verb == "get" and arguments[1] == "secret":
        url = next(iter(pods.values()))["environment"]["OPENGUILD_SERVER__DATABASE_URL"]
        sys.stdout.write(base64.b64encode(url.encode()).decode())
    elif verb == "logs":
        for pod in pods.values():
            sys.stdout.writelines(lines_of(pod, arguments))
    elif verb == "exec":
        place = arguments.index("--")
        return run_in(pods[arguments[3].removeprefix("pod/")], arguments[place + 1 :])
    elif verb == "rollout" and arguments[1] in {"undo", "restart"}:
        asked = Path(state["rollout"])
        asked.with_suffix(".new").write_text(arguments[1])
        asked.with_suffix(".new").rename(asked)
        while asked.exists():
            time.sleep(0.05)
        sys.stdout.write("deployment.apps/openguild-server rolled back\n")
    elif verb == "rollout" and arguments[1] == "status":
        sys.stdout.write('deployment "openguild-server" successfully rolled out\n')
    else:
        sys.stderr.write(f"kubectl stand-in: unknown: {arguments}\n")
        return 1
    return 0


def list_addresses(pods: dict) -> None:
    """Print the pods in the form that deploy/oncall.sh asks for."""
    sys.stdout.write("".join(f"{name}=127.0.0.1:{pod['port']}\n" for name, pod in pods.items()))


def list_pods(pods: dict) -> None:
    """Print the pods as the default table."""
    sys.stdout.write("NAME READY STATUS\n")
    for name, pod in pods.items():
        with socket.socket() as sock:
            is_up = sock.connect_ex(("127.0.0.1", pod["port"])) == 0
        sys.stdout.write(f"{name} {'1/1 Running' if is_up else '0/1 CrashLoopBackOff'}\n")


def lines_of(pod: dict, arguments: list[str]) -> list[str]:
    """Return a pod's log lines. A minute of `--since` lasts MINUTE_SECS; `--since=15m` gives the whole log."""
    lines = Path(pod["log"]).read_text().splitlines(keepends=True)
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "--tail" and value != "-1":
            lines = lines[-int(value) :]
        elif name == "--since" and value != "15m":
            since = datetime.now(UTC) - timedelta(seconds=MINUTE_SECS * int(value.removesuffix("m")))
            lines = [line for line in lines if line.partition('"timestamp":"')[2] > since.isoformat()]
    return lines


def run_in(pod: dict, command: list[str]) -> int:
    """Run a command of the image in a pod, with the pod's settings and its own ports."""
    program, *rest = command
    words = [word.replace("127.0.0.1:8080", f"127.0.0.1:{pod['port']}") for word in rest]
    words = [word.replace("127.0.0.1:9100", f"127.0.0.1:{pod['port']}") for word in words]
    environment = os.environ | pod["environment"]
    sys.stdout.flush()
    if program == "python":
        program = sys.executable
    return subprocess.run([program, *words], env=environment, cwd=pod["directory"], check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
