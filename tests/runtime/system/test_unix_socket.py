"""A removed socket is created again, and its path may have any length."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketListener, SocketStream
from structlog.testing import capture_logs

from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.system import unix_socket
from openguild_runtime.system.unix_socket import (
    MAX_NAME_BYTES,
    Answer,
    path_length_problem,
    remove_stale_sockets,
    serve_unix_socket,
    short_socket_path,
    worker_path,
    worker_paths,
)
from tests.support.waiting import eventually


async def echo(stream: SocketStream) -> None:
    await stream.send(await stream.receive())


async def echo_twice(stream: SocketStream) -> None:
    await echo(stream)
    await echo(stream)


@asynccontextmanager
async def serving(path: Path, answer: Answer = echo) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve_unix_socket, path, answer, 0.02)
        yield
        tasks.cancel_scope.cancel()


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            with short_socket_path(path) as name:
                client.connect(name)
        except OSError:
            return False
        client.sendall(b"x")
        return client.recv(1) == b"x"


async def answered(path: Path) -> bool:
    return await anyio.to_thread.run_sync(answers, path)


async def until_answered(path: Path) -> None:
    await eventually(lambda: answered(path), what=f"an answer at {path}")


@pytest.mark.anyio
@pytest.mark.parametrize("depth", [0, 3, 12])
async def test_a_path_of_any_length_is_served(depth: int, tmp_path: Path) -> None:
    directory = tmp_path.joinpath(*(["d" * 100] * depth))
    directory.mkdir(parents=True, exist_ok=True)
    path = worker_path(directory / "admin.sock", 63)
    async with serving(path):
        await until_answered(path)
        assert path.stat().st_mode & 0o777 == 0o600
        assert worker_paths(directory / "admin.sock") == {63: path}
    assert not path.exists()


@pytest.mark.anyio
async def test_a_removed_socket_is_created_again(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with serving(path):
        await until_answered(path)
        with capture_logs() as records:
            path.unlink()
            await until_answered(path)
        assert [record["event"] for record in records] == ["a local socket was removed and has been recreated"]


@pytest.mark.anyio
async def test_a_removed_directory_is_logged_once_and_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Path] = []
    listen = unix_socket._listen

    async def counted(path: Path) -> SocketListener:
        tries.append(path)
        return await listen(path)

    monkeypatch.setattr(unix_socket, "_listen", counted)
    directory = tmp_path / "run"
    directory.mkdir()
    path = directory / "admin.sock"
    async with serving(path):
        await until_answered(path)
        with capture_logs() as records:
            path.unlink()
            directory.rmdir()
            await eventually(lambda: len(tries) > 4, what="more tries")
        assert [record.get("reason") for record in records] == [None, "no such file or directory"]
        directory.mkdir()
        await until_answered(path)


@pytest.mark.anyio
async def test_a_request_survives_the_removal_of_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with serving(path, echo_twice):
        await until_answered(path)
        async with await anyio.connect_unix(path) as stream:
            await stream.send(b"y")
            assert await stream.receive() == b"y", "it is accepted"
            path.unlink()
            await until_answered(path)
            await stream.send(b"z")
            assert await stream.receive() == b"z"


@pytest.mark.anyio
async def test_a_socket_of_another_server_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with serving(path):
        await until_answered(path)
        with capture_logs() as records, socket.socket(socket.AF_UNIX) as other:
            path.unlink()
            other.bind(str(path))
            theirs = os.stat(path).st_ino
            await eventually(lambda: records, what="a line")
    assert path.stat().st_ino == theirs


def test_a_too_long_name_is_refused(tmp_path: Path) -> None:
    long = tmp_path / ("x" * (MAX_NAME_BYTES + 1))
    assert "at most" in (path_length_problem(long) or "")
    assert path_length_problem(tmp_path.joinpath(*(["d" * 100] * 5), "admin.sock")) is None
    embedded = ServerConfig.model_validate({"embedded": True, "data_dir": str(tmp_path / ("d" * 120))})
    assert embedded.admin_path == tmp_path / ("d" * 120) / "admin.sock"


def test_stale_sockets_with_any_name_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "a[1]*.sock"
    for each in (path, worker_path(path, 0), worker_path(path, 11)):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(each))
    assert list(worker_paths(path)) == [0, 11]
    remove_stale_sockets(path)
    assert list(tmp_path.iterdir()) == []
    remove_stale_sockets(tmp_path / "nowhere" / "admin.sock")
    (tmp_path / "admin.sock").mkdir()
    remove_stale_sockets(tmp_path / "admin.sock")
