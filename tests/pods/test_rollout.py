"""The pods of the rendered prod overlay, and a rollout of them as its Deployment says, under load behind a load balancer."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import httpx
import pytest

from openguild_proto.gateway.encoding import Encoding
from tests.pods.endpoints import Endpoints, endpoints
from tests.pods.manifest import Overlay
from tests.pods.pod import Node, Pod
from tests.support.chat import Chat, User
from tests.support.gateway_client import DrivenClient
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(900)  # a pod drains for 35 s, whatever the machine

USERS = 6
CLIENTS = 60
POSTS_PER_SEC = 2.5  # within the limits of prod: 60 a minute for a user, 200 for an address
LAG_SECS = 1.0  # until the load balancer hears that a pod is going


class Fleet:
    """The pods of the Deployment."""

    def __init__(self, node: Node, overlay: Overlay, balancer: Endpoints) -> None:
        self._node = node
        self._spec = overlay.pod()
        self._how = overlay.rollout()
        self._balancer = balancer
        self.pods: list[Pod] = []
        self.gone: list[Pod] = []

    def start(self) -> Pod:
        pod = Pod(self._node, self._spec, self._balancer.changed)
        self.pods.append(pod)
        return pod

    def delete(self, pod: Pod) -> threading.Thread:
        """The hook and the notice to the load balancer begin at the same time."""
        self.pods.remove(pod)
        self.gone.append(pod)
        notice = threading.Timer(LAG_SECS, self._balancer.changed, (pod, False))
        notice.start()
        ending = threading.Thread(target=pod.end)
        ending.start()
        return ending

    def roll(self) -> None:
        """Replace all pods: `maxSurge` more at a time, none less than the floor is available."""
        assert (self._how.max_surge, self._how.max_unavailable) == (1, 0)
        endings = []
        for old in list(self.pods):
            self.start().wait_available(self._how.min_ready_secs)
            assert sum(pod.is_ready for pod in self.pods) > self._how.replicas
            endings.append(self.delete(old))
        for ending in endings:
            ending.join()


@pytest.fixture(scope="module")
def balancer(directory: Path) -> Iterator[Endpoints]:
    with endpoints(directory) as found:
        yield found


@pytest.fixture(scope="module")
def fleet(node: Node, overlay: Overlay, balancer: Endpoints) -> Iterator[Fleet]:
    """As many pods as the autoscaler keeps at least, all available."""
    found = Fleet(node, overlay, balancer)
    how = overlay.rollout()
    assert how.replicas == 3
    for _ in range(how.replicas):
        found.start()
    for pod in found.pods:
        pod.wait_available(how.min_ready_secs)
    yield found
    for pod in (*found.pods, *found.gone):
        pod.remove()


async def _post(url: str, users: Sequence[User], channel: str, stop: asyncio.Event) -> list[str]:
    """Posts, each repeated with its key until it is taken. Return the ids."""
    taken: list[str] = []
    async with httpx.AsyncClient(trust_env=False, timeout=10, base_url=url) as client:
        for number, user in zip(itertools.count(), itertools.cycle(users), strict=False):
            if stop.is_set():
                return taken
            body = {"content": f"post {number}", "nonce": f"n{number}"}
            while True:
                try:
                    answer = await client.post(f"/channels/{channel}/messages", json=body, headers=user.auth)
                except httpx.TransportError:
                    answer = None
                if answer is not None and answer.status_code == 200:
                    taken.append(answer.json()["event_id"])
                    break
                assert answer is None or answer.status_code in {429, 502, 503}, answer.text
                await anyio.sleep(0.1)
            await anyio.sleep(1 / POSTS_PER_SEC)
    return taken


async def _under_load(
    fleet: Fleet, url: str, users: Sequence[User], channel: str
) -> tuple[list[DrivenClient], int, float]:
    """Roll while clients listen and users post: the clients, how many posts were taken, and how long the rollout took."""
    gateway = f"{url.replace('http', 'ws')}/client/v1/gateway"
    clients = [DrivenClient([gateway], list(Encoding)[number % 2]) for number in range(CLIENTS)]
    log, stop = f"channel:{channel}", asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = []
        for number, client in enumerate(clients):
            client.client.follow(log)
            running.append(tasks.create_task(client.run(users[number % len(users)].token)))
            await anyio.sleep(0.02)
        await eventually(lambda: all(log in client.client.places for client in clients), secs=60)
        posting = tasks.create_task(_post(url, users, channel, stop))
        began = time.monotonic()
        await anyio.to_thread.run_sync(fleet.roll)
        secs = time.monotonic() - began
        stop.set()
        taken = await posting
        await eventually(lambda: all(client.client.places[log].sequence >= len(taken) for client in clients), secs=60)
        for client, task in zip(clients, running, strict=True):
            client.client.close()
            task.cancel()
    return clients, len(taken), secs


def test_a_rollout_loses_nothing_and_ends_every_connection_with_a_code(
    fleet: Fleet, balancer: Endpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{balancer.port}"
    chat = Chat(url)
    users = [chat.user() for _ in range(USERS)]
    guild = users[0].guild()
    channel = users[0].channel(guild)
    code = users[0].invite(guild, max_uses=USERS)
    for user in users[1:]:
        user.ok(user.post(f"/invites/{code}/accept"))
    chat.close()
    clients, posts, secs = anyio.run(_under_load, fleet, url, users, channel)
    log = f"channel:{channel}"
    lost = sum(len(set(range(1, posts + 1)) - set(client.sequences.get(log, ()))) for client in clients)
    repeated = sum(sum(client.client.faults) for client in clients)
    codes = [code for client in clients for code in client.codes]
    with capsys.disabled():
        silence = max(client.longest_silence_secs for client in clients)
        print(
            f"\npods: {len(fleet.gone)} replaced in {secs:.0f} s under {CLIENTS} clients and {posts} posts: {lost} lost, "
            f"{repeated} repeated, {sum(client.connections - 1 for client in clients)} moves of clients, {len(codes)} of them "
            f"with a close code, {codes.count(None)} with 1006; longest silence {silence:.1f} s"
        )
    assert posts > 20
    assert (lost, repeated, codes.count(None)) == (0, 0, 0)
    assert all(client.connections >= 2 for client in clients), "each was sent elsewhere"
    assert [pod.exit_code for pod in fleet.gone] == [0, 0, 0]
    assert all(pod.messages()[-1] == "stopped" for pod in fleet.gone)
    assert [pod.liveness_failures for pod in fleet.pods] == [0, 0, 0]


def test_a_pod_is_as_the_manifest_restricts_it(fleet: Fleet, node: Node) -> None:
    pod = fleet.pods[0]
    status = node.docker("exec", pod.id, "sh", "-c", "cat /proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["1000"] * 4
    assert (fields["CapEff"], fields["NoNewPrivs"], fields["Seccomp"]) == ("0" * 16, "1", "2")
    top = json.loads(node.docker("exec", pod.id, "openguild-server", "admin", "top", "--json"))
    assert top["status"] == "ready"
    assert top["memory_bytes"] < 256 << 20, "the request of memory is what it takes without clients"
