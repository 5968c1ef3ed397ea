"""Builds the documents as a site: `python docs/site/build.py [OUTPUT]`, by default build/docs/html.

The sources are docs/, the changelog and the results of benchmarks. They are collected in a separate folder, with the pages of
the reference. A warning fails the build. So does a broken link inside the site, and a public name that is missing in the
reference.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import build_main

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = ROOT / "benchmarks/results"
sys.path[:0] = [str(HERE), str(ROOT)]

import links  # noqa: E402 - in this directory
import reference  # noqa: E402

LINK = re.compile(r"\]\(((?:\.\./)+[^)#]+)")  # to another folder
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", "site", "node_modules", "tables.py")


def inside(document: Path, target: str, source: Path) -> str:
    """Return the target of a link for the collected documents, where files from outside docs/ have another place."""
    file = (document.parent / target).resolve()
    if not file.is_file() or file.is_relative_to(ROOT / "docs"):
        return target
    if file.is_relative_to(RESULTS):
        within = f"results/{file.relative_to(RESULTS)}"
    elif file.name == "CHANGELOG.md":
        within = "changelog.md"
    else:
        within = f"files/{file.relative_to(ROOT)}"
        (source / within).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, source / within)
    return "../" * len(document.relative_to(ROOT / "docs").parents[1:]) + within


def collect(source: Path) -> None:
    """Collect docs/, and inside it the files elsewhere that its documents link to."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "docs", source, ignore=IGNORED)
    shutil.copytree(RESULTS, source / "results")
    shutil.copy(ROOT / "CHANGELOG.md", source / "changelog.md")
    for path in (source / "results").glob("*.md"):
        path.write_text(f"# Results: {path.stem}\n\n{path.read_text()}")
    for path in (ROOT / "docs").rglob("*.md"):
        copy = source / path.relative_to(ROOT / "docs")
        copy.write_text(LINK.sub(lambda found, path=path: f"]({inside(path, found[1], source)}", path.read_text()))
    reference.write_reference(source / "reference")


def main(arguments: list[str]) -> int:
    """Build the site; return the exit status."""
    output = Path(arguments[0]) if arguments else ROOT / "build/docs/html"
    source, cache = ROOT / "build/docs/source", ROOT / "build/docs/cache"
    collect(source)
    shutil.rmtree(output, ignore_errors=True)
    options = ["-W", "--keep-going", "-q", "-E", "-j", "auto", "-c", str(HERE), "-d", str(cache)]
    status = build_main([*options, "-b", "html", str(source), str(output)])
    problems = links.problems(output)
    problems += [f"{name} is not in the reference" for name in reference.undescribed(output)] if not status else []
    for problem in problems:
        sys.stderr.write(problem + "\n")
    if not status and not problems:
        sys.stdout.write(f"{output / 'index.html'}\n")
    return status or bool(problems)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
