"""`make fuzz SECONDS=300`: coverage-guided fuzzing of every target in turn, with atheris.

New inputs go to .fuzz/<target>; `--keep` adds what reaches something new to the kept corpus. A crash, an input that
takes over a second or memory over 256 MiB ends with a non-zero status and the file that does it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".fuzz"
CORPUS = Path(__file__).with_name("corpus")
NAMES = ("connection", "frames", "requests", "tokens", "events", "peers", "gateway")
BOUNDS = ("-timeout=1", "-rss_limit_mb=256", "-max_len=65536", "-print_final_stats=1")


def run_here(target: str, arguments: list[str]) -> None:
    """Fuzz in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["openguild_proto", "wsproto", "h11"]):
        from tests.fuzz.targets import TARGETS

    def one_input(data: bytes) -> None:
        TARGETS[target](data)

    atheris.Setup([sys.argv[0], *arguments], one_input)
    atheris.Fuzz()


def fuzz(target: str, secs: int, *, keep: bool) -> bool:
    """Whether nothing was found."""
    found = WORK / target
    found.mkdir(parents=True, exist_ok=True)
    kept = CORPUS / target
    bounds = [*BOUNDS, f"-artifact_prefix={found}-"]
    command = [sys.executable, "-m", "tests.fuzz", "--here", target]
    done = subprocess.run(
        [*command, str(found), str(kept), f"-max_total_time={secs}", *bounds],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    covered = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", done.stdout)
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stdout))
    sys.stdout.write(
        f"{target}: {stats.get('number_of_executed_units', '?')} inputs, edges {covered[-1][0] if covered else '?'}, "
        f"features {covered[-1][1] if covered else '?'}, slowest {stats.get('slowest_unit_time_sec', '?')} s, "
        f"peak {stats.get('peak_rss_mb', '?')} MiB: {'nothing found' if done.returncode == 0 else 'FOUND'}\n"
    )
    if done.returncode != 0:
        sys.stdout.write(done.stdout[-4_000:])
    elif keep:
        subprocess.run(
            [*command, "-merge=1", str(kept), str(found), *BOUNDS], cwd=ROOT, capture_output=True, check=True
        )
    sys.stdout.flush()
    return done.returncode == 0


def main() -> int:
    if sys.argv[1:2] == ["--here"]:
        run_here(sys.argv[2], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=300, help="for all targets together")
    parser.add_argument("--target", choices=NAMES, action="append")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    targets = options.target or list(NAMES)
    secs = max(1, options.seconds // len(targets))
    clean = [fuzz(target, secs, keep=options.keep) for target in targets]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    raise SystemExit(main())
