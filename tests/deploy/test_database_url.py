"""deploy/database-url.sh refuses a URL with an unencoded password, before libpq takes a part of it for the host."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.server import ROOT

BACKUP = ROOT / "deploy/backup.sh"
TOLD = "in the user name and the password of the URL, @ is written as %40, / as %2F and ? as %3F\n"


def back_up(url: str, directory: Path) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run the script with a stand-in for `pg_dump`; return its output and the arguments of `pg_dump`."""
    program, arguments = directory / "bin" / "pg_dump", directory / "arguments"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {arguments}\ntouch "${{6#--file=}}"\n')
    program.chmod(0o755)
    psql = program.with_name("psql")  # with which the script detects a pooler
    psql.write_text("#!/bin/sh\necho own\n")
    psql.chmod(0o755)
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [BACKUP, url, directory / "backup"], env=environment, capture_output=True, text=True, check=False
    )
    return done, arguments.read_text() if arguments.exists() else ""


@pytest.mark.parametrize("password", ["hun@ter2", "hun/ter2", "1/ter2", "h@n/ter2", "hun?ter2", "@@"])
def test_a_password_that_is_not_encoded_is_refused(password: str, tmp_path: Path) -> None:
    done, arguments = back_up(f"postgresql://me:{password}@db:5432/chat", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", TOLD)
    assert arguments == ""


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///chat?user=me@db",
        "postgresql://%2Frun/chat",
        "postgresql://me@db,other/chat",
        "postgresql://db?connect_timeout=3",
        "postgresql://me@db/chat?options=-csearch_path%3Dchat",
    ],
)
def test_other_forms_of_a_url_are_passed_on(url: str, tmp_path: Path) -> None:
    done, arguments = back_up(url, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"--dbname={url}\n" in arguments


def test_a_directory_is_no_file_for_a_backup(tmp_path: Path) -> None:
    """`mv` would put the backup into the directory, under another name."""
    (tmp_path / "backup").mkdir()
    done, arguments = back_up("postgresql://openguild@db/chat", tmp_path)
    assert (done.returncode, arguments) == (2, "")
    assert done.stderr == f"backup.sh: {tmp_path}/backup is a directory: name a file in it\n"
