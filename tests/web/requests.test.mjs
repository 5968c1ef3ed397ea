// Requests, with answers made up here: node --test, called by test_javascript_client.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError, Client } from "../../docs/web/openguild.js";

const SESSION = { access_token: "t", refresh_token: "r" };
class NoSocket {}

/** A client whose requests are answered by `answers` in turn: each a status with a body, or null for no answer. */
function begin(t, answers, options = {}) {
  const sent = [];
  const fetch = async (url, init) => {
    sent.push({ url, ...init });
    const answer = answers.shift();
    assert.notEqual(answer, undefined, `an unexpected request: ${init.method} ${url}`);
    if (answer === null) throw new TypeError("fetch failed");
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
    () => client.guild(half), () => client.members(half), () => client.channel(half), () => client.message("c", half), () => client.previewInvite(half),
    () => client.pin("c", half), () => client.unpin(half, "$e"), () => client.deleteInvite(half), () => client.logPage(`guild:${half}`),
    () => client.request("GET", `/guilds/${half}`), () => client.messages(half),
  ];
  for (const call of calls) {
    const refused = call(); // not thrown here
    await assert.rejects(refused, (refusal) => refusal instanceof ApiError && refusal.status === 400 && refusal.code === "invalid_json", String(call));
  }
  for (const key of ["", "a b", "Schlüssel", "one\ntwo", "k".repeat(65)]) {
    await assert.rejects(client.pin("c", "$e", { key }), (refusal) => refusal instanceof ApiError && refusal.code === "validation_error" && refusal.details[0].field === "key");
  }
  assert.deepEqual(sent, []);
});
