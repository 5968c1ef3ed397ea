"""Faults that nobody may notice: failing or missing backups, a refused reload, commits lost in a failover."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from openguild_runtime.embedded.postgres import postgres_programs
from tests.incidents.conftest import Incident, Site, pod, serving
from tests.support.oncall import OnCall
from tests.support.prometheus import Prometheus
from tests.support.server import ROOT
from tests.support.stale import StalePostgres
from tests.support.waiting import wait_until


def test_backups_fail_and_then_are_old(
    database_url: str,
    prometheus: Prometheus,
    tmp_path: Path,
    walk: Callable[..., Incident],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The password that cron uses is outdated; later cron does not run at all."""
    monkeypatch.setenv("PATH", f"{postgres_programs()}:{os.environ['PATH']}")  # of the server's version
    results, url = tmp_path / "backup.prom", tmp_path / "url"
    oncall = OnCall(tmp_path, {})
    (tmp_path / "oncall/deploy").symlink_to(ROOT / "deploy")  # the operator's shell runs in a checkout
    url.write_text(re.sub(r":[^:@/]+@", ":former@", database_url))

    def cron() -> int:
        oncall.run(f"deploy/backup.sh {url} {tmp_path}/backup {results}")
        return oncall.status

    assert cron() == 1
    with serving(results) as scraped:
        prometheus.watch(f"127.0.0.1:{scraped}")
        try:
            incident = walk("backup", oncall=oncall)
            incident.fires("OpenGuildBackupFails", instance=f"127.0.0.1:{scraped}")
            assert "password authentication failed" in incident.ask(url=url, file=tmp_path / "another")
            url.write_text(database_url)
            assert "another" in incident.ask(url=url, file=tmp_path / "another")
            incident.mend(url=url, file=tmp_path / "backup", metrics=results)
            incident.ends("OpenGuildBackupFails")
            text = results.read_text()
            results.write_text(re.sub(r"(?m)^(openguild_backup_timestamp_seconds) .*$", r"\1 1.7e9", text))
            incident.fires("OpenGuildBackupOld")
            assert cron() == 0
            incident.ends("OpenGuildBackupOld")
        finally:
            prometheus.forget(f"127.0.0.1:{scraped}")


def test_a_reload_is_refused(database_url: str, tmp_path: Path, walk: Callable[..., Incident]) -> None:
    """A limit has a typing error; the server keeps the earlier one."""
    file = tmp_path / "config/server.toml"
    file.parent.mkdir()
    file.write_text("")
    server = pod(tmp_path, DATABASE_URL=database_url)

    def hang_up() -> None:
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)

    with server.start():
        incident = walk("reload-failed", server)
        file.write_text('messaging.replay_window = "many"\n')
        hang_up()
        incident.fires("OpenGuildReloadFailed", instance=f"127.0.0.1:{server.port}")
        assert "messaging.replay_window: is not an integer" in incident.ask()
        assert server.status("/ready") == 200
        file.write_text("messaging.replay_window = 20\n")
        hang_up()
        wait_until(
            lambda: "successful 1.0" in incident.try_row("metrics openguild_config_last_reload_successful"),
            what="the reload",
        )
        incident.ends("OpenGuildReloadFailed")
        assert server.stop() == 0


def test_one_replica_has_a_setting_of_its_own(database_url: str, tmp_path: Path, walk: Callable[..., Incident]) -> None:
    """A limit was set at one replica and forgotten."""
    servers = [pod(tmp_path, DATABASE_URL=database_url) for _ in range(3)]
    with servers[0].start(), servers[1].start(), servers[2].start():
        incident = walk("settings-differ", *servers)
        odd = servers[1].run_command("admin", "set", "guilds.max_owned_per_user", "3")
        assert odd.returncode == 0, odd.stderr
        incident.fires("OpenGuildSettingsDiffer")
        said = incident.ask()
        digests = re.findall(r'openguild_settings_info{digest="(\w{8})"}', said)
        assert digests[0] == digests[2] != digests[1]
        counted = re.findall(r'^ +(\d) +"guilds.max_owned_per_user": (\d+)', said, re.MULTILINE)
        assert counted == [("1", "3"), ("2", "100")]
        incident.mend(key="guilds.max_owned_per_user", value="3")
        incident.ends("OpenGuildSettingsDiffer")
        found = incident.try_row("metrics openguild_settings_info")
        assert re.findall(r'digest="(\w+)"', found) == [digests[1]] * 3


def test_a_standby_that_was_behind_is_promoted(tmp_path: Path, walk: Callable[..., Incident]) -> None:
    """Acknowledged messages are lost."""
    postgres = StalePostgres(tmp_path / "data", fsync=False)
    postgres.start()
    try:
        server = pod(tmp_path, DATABASE_URL=postgres.url)
        assert server.run_command("migrate").returncode == 0
        with server.start():
            incident = walk("commits-lost", server)
            place = Site(server, postgres.url)
            assert place.post("kept") == 200
            postgres.fall_behind()
            wait_until(lambda: server.status("/ready") == 200)
            wait_until(lambda: place.post("lost") == 200)
            postgres.promote()
            incident.fires("OpenGuildEpochsRenewed")
            (renewed,) = [line for line in incident.ask().splitlines() if "may have lost its newest commits" in line]
            assert json.loads(renewed)["seen"] in {"another lineage", "an event that was stored is missing"}
            incident.ends("OpenGuildEpochsRenewed")
            assert place.post("and on") == 200
            assert server.stop() == 0
    finally:
        postgres.stop()
