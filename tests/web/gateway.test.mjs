// Gateway events, and calls that wait for answers, with an in-memory server: called by test_javascript_client.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError, ConnectionEnded, OpenGuildError, OutcomeUnknown } from "../../docs/web/openguild.js";
import { ReadMarker, ReadMarks } from "../../docs/web/openguild/reads.js";
import { FakeServer, idOf, json } from "./fake_server.mjs";

const log = `channel:${idOf(11)}`;

/** Return a connected client that follows a log, and its socket. */
async function begin(t, options) {
  const server = new FakeServer();
  server.logs.set(log, { epoch: 1, events: [] });
  const client = server.client(t, options);
  await client.connect();
  client.subscribe(log);
  await server.settled();
  const [socket] = server.sockets;
  return { server, client, socket };
}

test("a faulty greeting ends the connection, and another one follows", { timeout: 5_000 }, async (t) => {
  for (const limits of [undefined, {}, { frame_bytes: "many" }]) {
    const server = new FakeServer();
    const client = server.client(t);
    const reasons = [];
    client.on("status", ({ state, reason }) => {
      if (state === "waiting") (reasons.push(reason), (server.hello = { ...server.hello, limits: { frame_bytes: 65_536 } }));
    });
    server.hello = { ...server.hello, limits };
    await client.connect();
    assert.deepEqual(reasons, ["not a gateway frame: a faulty hello"]);
  }
});

test("a hint of a kind that is not known is passed over", async (t) => {
  const { client, socket } = await begin(t);
  const told = [];
  client.on("typing", ({ userId }) => told.push(userId));
  for (const data of [null, "a waltz", { user_id: "u" }]) socket.say({ type: "eph", log, kind: "dancing", data });
  for (const kind of ["typing", "presence"]) socket.say({ type: "eph", log, kind, data: null });
  socket.say({ type: "eph", log, kind: "typing", data: { user_id: "u" } });
  assert.deepEqual(told, [undefined, "u"]);
});

test("a presence that is refused is not chosen again with each connection", { timeout: 5_000 }, async (t) => {
  const { server, client, socket } = await begin(t);
  const failures = [];
  client.on("failure", (failure) => failures.push(failure.code));
  const put = "PUT /users/@me/presence";
  const setting = () => server.requests.filter((name) => name === put).length;
  server.answers.set(put, () => json(200, {}));
  await client.setPresence("idle");
  server.answers.set(put, () => json(403, { error: "presence_off", message: "" }));
  await assert.rejects(client.setPresence("offline"), (refusal) => refusal instanceof ApiError && refusal.code === "presence_off");
  const before = setting();
  socket.end(1012);
  await client.connect();
  await server.settled();
  assert.deepEqual([setting() - before, failures], [0, []]);
});

test("a presence that cannot be repeated now is repeated with the next connection", { timeout: 5_000 }, async (t) => {
  const { server, client } = await begin(t, { retryMs: 5 });
  const failures = [];
  client.on("failure", (failure) => failures.push(failure));
  const put = "PUT /users/@me/presence";
  server.answers.set(put, () => json(204));
  await client.setPresence("idle");
  let repeated;
  const { setPresence } = client;
  client.setPresence = (status) => (repeated = setPresence.call(client, status));
  const noAnswer = () => {
    throw new TypeError("fetch failed");
  };
  const unavailable = () => json(503, { error: "overloaded", message: "", retry_after_ms: 1_000 });
  const ended = () => json(401, { error: "unauthorized", message: "" });
  server.answers.set("POST /sessions/refresh", ended);
  const connections = [[noAnswer, OutcomeUnknown], [unavailable, ApiError], [() => json(204), undefined], [ended, ApiError]];
  for (const [answer, outcome] of connections) {
    server.answers.set(put, answer);
    const [socket] = server.sockets;
    socket.end(1012);
    await client.connect();
    const end = await repeated.catch((failure) => failure.constructor);
    assert.equal(end, outcome);
    await server.settled();
  }
  assert.deepEqual(failures, []);
});

test("a log that is moved and given up at once is not followed on the server", async (t) => {
  const { server, client, socket } = await begin(t);
  client.subscribe(log, { after: 0 });
  client.unsubscribe(log);
  await server.settled();
  assert.deepEqual([...socket.followed.keys()], []);
});

test("what is posted behind a subscription is told", async (t) => {
  const { server, client } = await begin(t);
  const other = `channel:${idOf(12)}`;
  server.logs.set(other, { epoch: 1, events: [] });
  server.frames = [];
  client.subscribe(other);
  client.post(idOf(12), "hello").catch(() => {});
  await server.settled();
  assert.deepEqual(server.frames, ["sub", "post"]);
});

/** Return a read marker whose positions are never sent, and the pending timers of its clock, which never fire. */
function readMarker() {
  const timers = new Set();
  const clock = {
    now: () => 0,
    after: (ms, call) => {
      const timer = { ms, call };
      timers.add(timer);
      return () => timers.delete(timer);
    },
  };
  const never = () => new Promise(() => {});
  const parts = { ready: never, attempt: never, renew: () => {}, clock, random: () => 0 };
  return { reads: new ReadMarker(parts), timers };
}

test("a read position that cannot wait leaves no timer", async () => {
  const { reads, timers } = readMarker();
  for (let number = 0; number < 1_000; number += 1) reads.mark(idOf(number), 1, 60_000).catch(() => {});
  await assert.rejects(reads.mark(idOf(1_000), 1, 60_000), OpenGuildError);
  assert.equal(timers.size, 1_000);
  reads.end(new ConnectionEnded(null, "closed"));
  assert.equal(timers.size, 0);
});

test("nobody who has given up is kept with a read position", () => {
  const marks = new ReadMarks(() => 0);
  marks.add("a", 1, "first", "second");
  marks.take(0);
  marks.add("a", 2, "third");
  for (const waiting of ["first", "third"]) marks.withdraw("a", waiting);
  assert.deepEqual(marks.clear(), ["second"]);
});
