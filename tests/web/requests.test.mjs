// Requests with fake answers: node --test, called by test_javascript_client.py.
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { ApiError, Client, ConnectionEnded, OpenGuildError, OutcomeUnknown } from "../../docs/web/openguild.js";
import { Http } from "../../docs/web/openguild/http.js";

const SESSION = { access_token: "t", refresh_token: "r" };
class NoSocket {}

/** Return a client whose requests get `answers` in turn: each a status with a body, or null for no answer. */
function begin(t, answers, options = {}) {
  const sent = [];
  const fetch = async (url, init) => {
    sent.push({ url, ...init });
    const answer = answers.shift();
    assert.notEqual(answer, undefined, `an unexpected request: ${init.method} ${url}`);
    if (answer === null) throw new TypeError("fetch failed");
    if (answer instanceof Response) return answer;
    const [status, body = {}] = answer;
    return new Response(JSON.stringify(body), { status, headers: { "content-type": "application/json" } });
  };
  const stored = { url: "http://localhost", device_id: "d", session: SESSION, positions: {} };
  const client = Client.fromJSON(stored, { fetch, WebSocket: NoSocket, random: () => 0, ...options });
  t.after(() => client.close());
  return { client, sent };
}

test("what cannot be sent in a path or as a key is refused by a promise, before it is sent", async (t) => {
  const { client, sent } = begin(t, []);
  const half = "👍".slice(0, 1);
  const calls = [
    () => client.guild(half), () => client.members(half), () => client.channel(half), () => client.message("c", half),
    () => client.previewInvite(half), () => client.pin("c", half), () => client.unpin(half, "$e"), () => client.deleteInvite(half),
    () => client.logPage(`guild:${half}`), () => client.request("GET", `/guilds/${half}`), () => client.messages(half),
  ];
  /** @param {string} code */
  const refusal = (code) => (failure) => failure instanceof ApiError && failure.status === 400 && failure.code === code;
  for (const call of calls) {
    const refused = call(); // must reject, not throw
    await assert.rejects(refused, refusal("invalid_json"), String(call));
  }
  for (const key of ["", "a b", "Schlüssel", "one\ntwo", "k".repeat(65)]) {
    await assert.rejects(client.pin("c", "$e", { key }), refusal("validation_error"));
  }
  assert.deepEqual(sent, []);
});

test("what is no invite is refused by a promise, before it is sent", async (t) => {
  const { client, sent } = begin(t, []);
  for (const call of [client.acceptInvite, client.previewInvite]) {
    for (const invite of [undefined, null, 7]) {
      await assert.rejects(call.call(client, invite), (failure) => failure instanceof ApiError && failure.code === "validation_error");
    }
  }
  assert.deepEqual(sent, []);
});

test("what toJSON did not return is refused in words", () => {
  const stored = { url: "http://localhost", device_id: "d", session: SESSION, positions: { "channel:c": [1, 2] } };
  const junk = [
    undefined, null, "junk", 7, [], {}, { ...stored, url: undefined }, { ...stored, device_id: 7 }, { ...stored, session: {} },
    { ...stored, session: undefined }, { ...stored, positions: null }, { ...stored, positions: { "channel:c": 1 } },
    { ...stored, positions: { "channel:c": [1] } }, { ...stored, positions: { "channel:c": ["1", 2] } }, { ...stored, url: "nowhere" },
  ];
  const isTold = (failure) => failure instanceof OpenGuildError && /toJSON|address/.test(failure.message);
  for (const kept of junk) assert.throws(() => Client.fromJSON(kept, { WebSocket: NoSocket }), isTold, JSON.stringify(kept));
  assert.deepEqual(Client.fromJSON(stored, { WebSocket: NoSocket }).toJSON(), stored);
});

test("a listener to a name under which nothing is told is refused", (t) => {
  const { client } = begin(t, []);
  for (const name of ["mesage", "", "toString", undefined]) assert.throws(() => client.on(name, () => {}), OpenGuildError, name);
  for (const name of ["message", "mentioned", "member.joined", "weather.changed", "failure"]) client.on(name, () => {});
});

const createGuild = (client) => client.createGuild("g");
const ENDED = [401, { error: "invalid_refresh_token", message: "log in again" }];

test("a change that may have been made ends with an unknown outcome, however its last attempt ends", async (t) => {
  const unauthorized = [401, { error: "unauthorized", message: "" }];
  const forbidden = [403, { error: "forbidden", message: "" }];
  const failed = [500, { error: "server_error", message: "" }];
  const cases = [
    [createGuild, [null, unauthorized, ENDED]], // the session ends between two attempts
    [createGuild, [[502], unauthorized, ENDED]],
    [(client) => client.renameGuild("g", "h"), [null, forbidden]],
    [(client) => client.setPresence("idle"), [[503, { error: "database_unavailable", message: "" }], forbidden]],
    [(client) => client.leaveGuild("g"), [failed]],
    [(client) => client.register("alice", "correct horse"), [failed]],
  ];
  for (const [call, answers] of cases) {
    const { client, sent } = begin(t, answers);
    const failure = await call(client).catch((failure) => failure);
    assert.ok(failure instanceof OutcomeUnknown, `${call}: ${failure}`);
    assert.equal(failure.key, sent[0].headers["idempotency-key"]);
    assert.deepEqual(answers, []);
  }
});

test("a refusal says that nothing was done where that is known", async (t) => {
  const refused = [403, { error: "forbidden", message: "" }];
  const overloaded = [503, { error: "overloaded", message: "" }];
  const cases = [
    [createGuild, [overloaded, refused], 403],
    [(client) => client.deleteGuild("g"), [overloaded], 503],
    [(client) => client.guild("g"), [null, refused], 403], // a read
    [(client) => client.login("alice", "wrong horse"), [null, [401, { error: "invalid_credentials", message: "" }]], 401],
    [createGuild, [[401, { error: "unauthorized", message: "" }], ENDED], 401],
  ];
  for (const [call, answers, status] of cases) {
    const { client } = begin(t, answers);
    await assert.rejects(call(client), (refusal) => refusal instanceof ApiError && refusal.status === status, String(call));
    assert.deepEqual(answers, []);
  }
});

test("a token that cannot be had leaves the key with the error", async (t) => {
  const { client } = begin(t, [[401, { error: "unauthorized", message: "" }], null], { retryMs: 0 });
  await assert.rejects(client.pin("c", "$e", { key: "k" }), (failure) => failure instanceof OutcomeUnknown && failure.key === "k");
});

test("closing leaves open what was being sent, and nothing else", { timeout: 5_000 }, async (t) => {
  for (const [call, kind] of [[createGuild, OutcomeUnknown], [(client) => client.guild("g"), ConnectionEnded]]) {
    let client;
    const fetch = (_, { signal }) => new Promise((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason));
      setImmediate(() => client.close());
    });
    ({ client } = begin(t, [], { fetch }));
    await assert.rejects(call(client), kind);
    await assert.rejects(createGuild(client), ConnectionEnded, "nothing is sent any more");
  }
});

test("an answer without what it must have is none of the server", async (t) => {
  const ids = begin(t, [new Response(""), [200, []]]);
  assert.deepEqual(await ids.client.guilds(), []);
  const { client } = begin(t, [new Response(null, { status: 204 }), [200, {}], [200, { access_token: 1, refresh_token: "r" }]]);
  await client.leaveGuild("g");
  for (let count = 0; count < 2; count += 1) await assert.rejects(client.login("alice", "correct horse"), OutcomeUnknown);
  assert.deepEqual(client.toJSON().session, SESSION);
  const refreshed = begin(t, [[401, { error: "unauthorized", message: "" }], [200, null]]);
  await assert.rejects(refreshed.client.me(), OutcomeUnknown);
  assert.deepEqual(refreshed.client.toJSON().session, SESSION);
});

test("a request leaves nothing behind", async () => {
  const closed = new AbortController().signal;
  const fetch = async () => new Response("{}", { headers: { "content-type": "application/json" } });
  const freshToken = async () => "t";
  const http = new Http({ base: "http://localhost", fetch, random: () => 0, retryMs: 1_000, freshToken, closed, left: () => closed });
  for (let count = 0; count < 10; count += 1) await http.send("GET", "/users/me");
  const dependants = Object.getOwnPropertySymbols(closed).find((name) => String(name).includes("kDependantSignals")); // Node's
  assert.equal(closed[dependants]?.size ?? 0, 0);
  assert.deepEqual(getEventListeners(closed, "abort"), []);
});

test("Node warns of no leak where many wait at once, and close ends them all", { timeout: 5_000 }, async (t) => {
  const warnings = [];
  const listener = ({ message }) => warnings.push(message);
  process.on("warning", listener);
  t.after(() => process.off("warning", listener));
  let [sent, isAllSent] = [0, () => {}];
  const allSent = new Promise((resolve) => (isAllSent = resolve));
  const fetch = async (_, { signal }) => {
    sent += 1;
    if (sent <= 20) return new Response("{}", { status: 503 }); // then all of them pause
    if (sent === 40) isAllSent();
    return await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  };
  const { client } = begin(t, [], { fetch });
  const calls = Array.from({ length: 20 }, () => client.guild("g"));
  const ends = Promise.allSettled(calls);
  await allSent;
  client.close();
  for (const { reason } of await ends) assert.ok(reason instanceof ConnectionEnded, String(reason));
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(warnings, []);
});
