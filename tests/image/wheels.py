"""The wheel is the same whoever builds it: twice, in two directories, with SOURCE_DATE_EPOCH of the last commit."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from tests.image.commands import CommandError, run

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "from setuptools import build_meta; build_meta.build_wheel({!r})"


def reproducible_wheel(directory: Path) -> str:
    """The name and the SHA-256 of the wheel. Raises CommandError if two builds differ."""
    epoch = run("git", "log", "-1", "--format=%ct", cwd=ROOT).strip()
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    built = []
    for name in ("first", "second"):
        checkout, wheels = directory / name / "checkout", directory / name / "wheels"
        for file in filter(None, listed):
            if (ROOT / file).is_file():
                (checkout / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, checkout / file)
        wheels.mkdir()
        run(sys.executable, "-c", SCRIPT.format(str(wheels)), cwd=checkout, env={"SOURCE_DATE_EPOCH": epoch})
        wheel = next(wheels.glob("*.whl"))
        built.append(f"{wheel.name} sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}")
    if built[0] != built[1]:
        raise CommandError(f"two builds of the wheel differ: {built}")
    return built[0]
