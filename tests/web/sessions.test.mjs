// The effect of a session's end and of a login on the gateway, with an in-memory server: called by test_javascript_client.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, ConnectionEnded, OpenGuildError, OutcomeUnknown } from "../../docs/web/openguild.js";
import { Gateway } from "../../docs/web/openguild/gateway.js";
import { FakeServer, idOf, json, ME } from "./fake_server.mjs";

const settled = () => new Promise((resolve) => setImmediate(resolve)); // runs all pending promises
class SilentSocket {
  readyState = 0;
  addEventListener() {}
  close() {}
}

/** Return a clock that does not move; `timers`: the running ones. */
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
    socket.end(4004); // the token has expired
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

/** Return the answer to a login or a refresh of a user. */
function pairOf(userId, name) {
  const payload = btoa(JSON.stringify({ session_id: name, user_id: userId, issued_at: "2026-01-01T00:00:00Z" }));
  return json(200, { access_token: `${payload}.s`, refresh_token: name, access_expires_at: "2026-01-01T01:00:00Z" });
}
const follow = (client, log) => {
  const heard = [];
  client.on("event", ({ log, sequence }) => heard.push(`${log} ${sequence}`));
  client.subscribe(log);
  return heard;
};

test("a login ends what the former session does, and the client goes on with the new one", { timeout: 5_000 }, async (t) => {
  const server = new FakeServer();
  server.answers.set("POST /sessions/login", () => pairOf(ME, "second"));
  const client = server.client(t);
  await client.connect();
  const heard = follow(client, LOG);
  const posted = client.post(ME, "hello"); // the server does not answer
  const loop = client.events(LOG).next();
  await server.settled();
  const [former] = server.sockets;
  const { arrived, release } = server.hold("GET /users/me");
  const reading = client.me();
  await arrived;
  await client.login("alice", "correct horse");
  former.end(4005); // as a login of the device does; too late to affect this session
  await assert.rejects(posted, OutcomeUnknown);
  await assert.rejects(loop, isOver);
  release();
  await assert.rejects(reading, ConnectionEnded);
  assert.deepEqual([client.isLoggedIn, client.status.state], [true, "ended"]);
  server.append(LOG, "profile.updated"); // meanwhile
  client.subscribe(LOG);
  await client.connect();
  await server.settled();
  assert.deepEqual(heard, [`${LOG} 1`], "it goes on where it was");
  assert.equal(client.status.state, "online");
});

test("one can log in again after the session has ended, before or after one is told", { timeout: 5_000 }, async (t) => {
  for (const endsFirst of [true, false]) {
    const server = new FakeServer();
    server.answers.set("POST /sessions/login", () => pairOf(ME, "second"));
    const client = server.client(t);
    const sessions = [];
    client.on("session", (session) => sessions.push(session?.refresh_token ?? null));
    await client.followAll();
    const [former] = server.sockets;
    if (endsFirst) former.end(4005);
    await client.login("alice", "correct horse");
    former.end(4005);
    await client.followAll();
    assert.deepEqual([client.isLoggedIn, client.status.state, sessions.at(-1)], [true, "online", "second"]);
  }
});

test("what one user has followed is nothing of another one", async (t) => {
  const server = new FakeServer();
  const [bob, channel] = [idOf(2), `channel:${idOf(11)}`];
  server.logs.set(channel, { epoch: 1, events: [] });
  server.answers.set("POST /sessions/login", ({ identifier }) => pairOf(identifier === "bob" ? bob : ME, identifier));
  const client = server.client(t);
  await client.login("alice", "correct horse");
  await client.connect();
  const heard = follow(client, channel);
  await server.settled();
  await client.login("bob", "correct horse");
  server.append(channel, "message");
  client.subscribe(channel);
  await client.connect();
  await server.settled();
  assert.deepEqual(heard, []);
});

test("how one user appears is chosen again after a login of theirs, and nothing of another one", async (t) => {
  const server = new FakeServer();
  const [bob, put] = [idOf(2), "PUT /users/@me/presence"];
  server.answers.set(put, () => json(204));
  server.answers.set("POST /sessions/login", ({ identifier }) => pairOf(identifier === "bob" ? bob : ME, identifier));
  const client = server.client(t);
  const chosen = [];
  for (const name of ["alice", "alice", "bob"]) {
    await client.login(name, "correct horse");
    await client.connect();
    if (chosen.length === 0) await client.setPresence("idle");
    await server.settled();
    chosen.push(server.requests.filter((request) => request === put).length);
  }
  assert.deepEqual(chosen, [1, 2, 2]);
});

test("a refresh of the former session changes nothing of the new one", async (t) => {
  for (const answer of [() => pairOf(ME, "late"), ENDED]) {
    const server = new FakeServer();
    server.answers.set("POST /sessions/login", () => pairOf(ME, "second"));
    server.answers.set("POST /sessions/refresh", answer);
    server.answers.set("GET /users/me", () => json(401, { error: "unauthorized", message: "" }));
    const client = server.client(t);
    const { arrived, release } = server.hold("POST /sessions/refresh");
    const asked = client.me().catch(() => {});
    await arrived;
    await client.login("alice", "correct horse");
    release();
    await asked;
    await server.settled();
    assert.equal(client.toJSON().session.refresh_token, "second");
  }
});

test("what is subscribed before the login is followed", async (t) => {
  const server = new FakeServer();
  server.answers.set("POST /sessions/login", () => pairOf(ME, "first"));
  const client = new Client("http://localhost", { WebSocket: server.WebSocket, fetch: server.fetch });
  t.after(() => client.close());
  const heard = follow(client, LOG);
  await client.login("alice", "correct horse");
  await server.settled();
  server.append(LOG, "profile.updated");
  await server.settled();
  assert.deepEqual(heard, [`${LOG} 1`]);
});
