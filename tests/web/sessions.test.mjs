// What a session's end and a login mean for the gateway, with a server in memory: called by test_javascript_client.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnectionEnded, OpenGuildError, OutcomeUnknown } from "../../docs/web/openguild.js";
import { Gateway } from "../../docs/web/openguild/gateway.js";
import { FakeServer, json, ME } from "./fake_server.mjs";

const settled = () => new Promise((resolve) => setImmediate(resolve)); // every promise that can go on has gone on
class SilentSocket {
  readyState = 0;
  addEventListener() {}
  close() {}
}

/** A clock that stands still; `timers`: those that run. */
function stoppedClock() {
  const timers = new Set();
  return {
    timers,
    now: () => 0,
    after(ms, call) {
      timers.add(call);
      return () => timers.delete(call);
    },
  };
}

test("nothing waits behind the end of a gateway, so that a program can end", async () => {
  for (const endsFirst of [false, true]) {
    const clock = stoppedClock();
    let fail;
    const freshToken = async (refused) => (refused === undefined ? "t" : await new Promise((_, reject) => (fail = reject)));
    const parts = { url: "ws://test", WebSocket: SilentSocket, freshToken, tell: () => {}, random: () => 0.5, clock };
    const gateway = new Gateway(parts);
    gateway.start();
    await settled();
    void gateway.renew();
    if (endsFirst) gateway.close();
    fail(new OutcomeUnknown("no answer"));
    await settled();
    gateway.close();
    assert.equal(clock.timers.size, 0);
  }
});

const ENDED = () => json(401, { error: "invalid_refresh_token", message: "log in again" });
const isOver = (failure) => failure instanceof ConnectionEnded && failure.code === 4005;
const LOG = `user:${ME}`;

test("where the session has ended the gateway ends, and says so to all who wait", async (t) => {
  for (const refusal of [ENDED, () => json(403, { error: "forbidden", message: "" })]) {
    const server = new FakeServer();
    server.answers.set("POST /sessions/refresh", refusal);
    const client = server.client(t);
    await client.connect();
    const loop = client.events(LOG).next();
    const posted = client.post(ME, "hello"); // the server does not answer
    await server.settled();
    const [socket] = server.sockets;
    socket.end(4004); // the token is over
    await assert.rejects(loop, isOver);
    await assert.rejects(posted, OutcomeUnknown);
    await assert.rejects(client.connect(), (failure) => failure instanceof OpenGuildError && failure.message === "log in first");
    assert.deepEqual([client.status.state, client.isLoggedIn], ["ended", false]);
  }
});

test("a gateway that comes back without a session ends", async (t) => {
  const server = new FakeServer();
  const client = server.client(t);
  await client.connect();
  const loop = client.events(LOG).next();
  await server.settled();
  const [socket] = server.sockets;
  server.answers.set("GET /users/me", () => json(401, { error: "unauthorized", message: "" }));
  server.answers.set("POST /sessions/refresh", ENDED);
  await assert.rejects(client.me(), { status: 401 });
  socket.end(1012);
  await assert.rejects(loop, isOver);
  assert.equal(client.status.state, "ended");
});

test("what is asked of a gateway that has ended rejects with its end", { timeout: 5_000 }, async (t) => {
  const server = new FakeServer();
  const client = server.client(t);
  await client.connect();
  const [socket] = server.sockets;
  socket.end(4000);
  const isEnd = (failure) => failure instanceof ConnectionEnded && failure.code === 4000;
  await assert.rejects(client.connect(), isEnd);
  await assert.rejects(client.post(ME, "hello"), isEnd);
  await assert.rejects(client.read(ME, 1), isEnd);
  await assert.rejects(client.events(LOG).next(), isEnd);
  const closed = server.client(t);
  closed.close();
  assert.equal((await closed.events(LOG).next()).done, true, "closed by the caller");
});
