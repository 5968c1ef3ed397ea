"""Stand-ins for the image that the Dockerfile starts from: Debian's Python, made with mmdebstrap instead of a registry.

Two: what is shipped starts from the one, and is built in the other, which has in addition what this machine needs to
install from its index (CA files, pip's settings) and what Debian keeps apart from Python.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import sys
from pathlib import Path

from tests.image.commands import run
from tests.image.engine import Docker

SUITE = "bookworm"
BASE = "openguild-test/python"
BUILD = "openguild-test/python-build"
CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
PACKAGES = ("python3", "ca-certificates", "usr-is-merged")  # the last one instead of Perl
OPTIONS = (
    # as the official images have them
    "--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*", '--aptopt=APT::Install-Recommends "false"',
    '--aptopt=Dir::Cache::pkgcache ""', '--aptopt=Dir::Cache::srcpkgcache ""',
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
)  # fmt: skip
DOCKERFILE = f"""
FROM {BASE}
COPY ca.crt {CA_FILE}
COPY pip.conf /etc/pip.conf
RUN apt-get -qq update && apt-get -qq install --yes --no-install-recommends python3-dev python3-venv gcc libc6-dev
"""
PIP_SETTINGS = ("index-url", "extra-index-url", "proxy", "trusted-host", "timeout", "retries")


def make_root(directory: Path) -> Path:
    """A root file system with Python as a tar file, from the package sources of this machine if it is of that release."""
    root = directory / "root.tar"
    sources = _package_sources()
    checks = re.findall(r'^(Acquire::Check-\S+ ".*");$', run("apt-config", "dump"), re.MULTILINE)
    options = [*OPTIONS, *(f"--aptopt={check}" for check in checks)]
    run(
        "mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(PACKAGES)}", *options, SUITE, root, *sources,
        env={"TMPDIR": str(directory)},
    )  # fmt: skip
    return root


def import_base(docker: Docker, root: Path) -> str:
    """Import the root; its digest."""
    digest = docker("import", root, BASE)
    root.unlink()
    return digest


def make_build_root(docker: Docker, directory: Path) -> str:
    """Build what the image is built in; its digest."""
    directory.mkdir()
    authorities = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile or CA_FILE
    shutil.copy(authorities, directory / "ca.crt")
    (directory / "pip.conf").write_text("\n".join(["[global]", f"cert = {CA_FILE}", *_pip_settings(), ""]))
    (directory / "Dockerfile").write_text(DOCKERFILE)
    docker("build", "--quiet", "--network", "host", "--tag", BUILD, directory)
    return docker("image", "inspect", "--format", "{{.Id}}", BUILD)


def _package_sources() -> list[Path]:
    release = Path("/etc/os-release").read_text()
    if f"VERSION_CODENAME={SUITE}" not in release:
        return []
    found = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
    return [path for path in found if path.is_file() and path.stat().st_size][:1]


def _pip_settings() -> list[str]:
    """Those that hold on another root too: no directories of this machine."""
    listed = run(sys.executable, "-m", "pip", "config", "list")
    settings = re.findall(r"^(?:global|:env:)\.(\S+)='(.*)'$", listed, re.MULTILINE)
    return [
        f"{name} = {value}" for name, value in dict(settings).items() if name in PIP_SETTINGS and "file:" not in value
    ]
