// What comes over the gateway, and what waits for its answers, with a server in memory: called by test_javascript_client.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError } from "../../docs/web/openguild.js";
import { FakeServer, idOf, json } from "./fake_server.mjs";

const log = `channel:${idOf(11)}`;

/** A client that is connected and follows a log, and its socket. */
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
    assert.deepEqual(reasons, ["not a frame of a gateway: a faulty hello"]);
  }
});

test("a hint of a kind that is not known is told as it is", async (t) => {
  const { client, socket } = await begin(t);
  const told = [];
  client.on("dancing", (data) => told.push(data));
  for (const data of [null, "a waltz", { user_id: "u" }]) socket.say({ type: "eph", log, kind: "dancing", data });
  for (const kind of ["typing", "presence"]) socket.say({ type: "eph", log, kind, data: null });
  assert.deepEqual(told, [null, "a waltz", { user_id: "u" }]);
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
