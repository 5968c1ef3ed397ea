// Loops and listeners on one log, with a fake server: node --test, called by test_javascript_client.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, LogGone, OpenGuildError } from "../../docs/web/openguild.js";

const LOG = "channel:0198c0de-0000-4000-8000-000000000001";
const FULL = 1_000; // the most events that a loop queues
const upTo = (last, from = 1) => Array.from({ length: last - from + 1 }, (_, place) => from + place);

/** One log, and the sockets that follow it. */
class Server {
  head = 0;
  epoch = 1;
  sockets = new Set();
  /** The number of frames in flight. */
  pending = 0;

  /** Call this in a later turn, as the network does. */
  later(call) {
    this.pending += 1;
    setImmediate(() => {
      this.pending -= 1;
      call();
    });
  }

  /** Wait until nothing is in flight in either direction. */
  async settled() {
    do await new Promise((resolve) => setImmediate(resolve));
    while (this.pending > 0);
    await new Promise((resolve) => setImmediate(resolve));
    if (this.pending > 0) await this.settled();
  }

  /** The class of its sockets. */
  get WebSocket() {
    const server = this;
    return class {
      readyState = 0;
      listeners = {};
      at = Infinity; // the last sequence that was sent

      constructor() {
        server.sockets.add(this);
        server.later(() => {
          this.readyState = 1;
          this.tell("open", {});
          this.say({ type: "hello", heartbeat_ms: 25_000, limits: { logs: 1_000, frame_bytes: 65_536, frames_per_minute: 0, held_frames: 64 } });
        });
      }
      addEventListener(kind, listener) {
        (this.listeners[kind] ??= []).push(listener);
      }
      tell(kind, event) {
        for (const listener of this.listeners[kind] ?? []) listener(event);
      }
      say(frame) {
        this.tell("message", { data: JSON.stringify(frame) });
      }
      send(message) {
        server.later(() => this.take(JSON.parse(message)));
      }
      close() {
        server.sockets.delete(this);
      }
      take({ type, ref, logs: [asked] = [] }) {
        if (type === "auth") this.say({ type: "ready", user: { user_id: "u", username: "u" }, session: {}, guilds: [], heads: [] });
        if (type === "unsub") this.at = Infinity;
        if (type !== "sub") return;
        const { head, epoch } = server;
        const recovered = asked.after === undefined || (asked.after <= head && [undefined, epoch].includes(asked.epoch));
        this.at = recovered && asked.after !== undefined ? asked.after : head - (asked.tail ?? 0);
        this.say({ type: "sub_ok", ref, logs: [{ log: LOG, epoch, after: this.at, head, recovered }] });
        this.catchUp();
      }
      catchUp() {
        while (this.at < server.head) this.say({ type: "ev", log: LOG, epoch: server.epoch, seq: (this.at += 1), event: { event_type: "message", content: {} } });
      }
    };
  }

  async grow(count) {
    await this.settled();
    this.head += count;
    for (const socket of this.sockets) socket.catchUp();
    await this.settled();
  }

  /** Roll the log back, with a new epoch. */
  async restart(head) {
    Object.assign(this, { head, epoch: this.epoch + 1 });
    for (const socket of this.sockets) {
      socket.at = Infinity;
      socket.say({ type: "gone", log: LOG, code: "restarted" });
    }
    await this.settled();
  }
}

/** Return a server, a client of it, and the events of a listener. */
function start(t) {
  const server = new Server();
  const session = { access_token: "t", refresh_token: "r" };
  const client = Client.fromJSON({ url: "http://localhost", device_id: "d", session, positions: {} }, { WebSocket: server.WebSocket });
  t.after(() => client.close());
  const heard = [];
  client.on("message", ({ sequence }) => heard.push(sequence));
  return { server, client, heard };
}

/** Collect the events of a loop; `onEnd` gets its failure. */
function taken(loop, onEnd = () => {}) {
  const found = [];
  (async () => {
    for await (const { sequence } of loop) found.push(sequence);
  })().catch(onEnd);
  return found;
}

/** Return a loop at its first event, with a larger backlog than it holds. */
async function full({ server, client }) {
  const loop = client.events(LOG, { after: 0 });
  const first = loop.next();
  await server.grow(1);
  await first;
  await server.grow(FULL + 500);
  return loop;
}

test("a subscription beside a full loop loses and repeats nothing", async (t) => {
  const scene = start(t);
  const loop = await full(scene);
  scene.client.subscribe(LOG);
  await scene.server.grow(5);
  const found = taken(loop);
  await scene.server.settled();
  assert.deepEqual(found, upTo(FULL + 506, 2));
  assert.deepEqual(scene.heard, upTo(FULL + 506));
});

test("a second loop beside a full one goes on behind it, also when that one is left", async (t) => {
  const scene = start(t);
  const loop = await full(scene);
  const found = taken(scene.client.events(LOG));
  await scene.server.grow(5);
  assert.deepEqual(found, []);
  await loop.return();
  await scene.server.settled();
  assert.deepEqual(found, upTo(FULL + 506, FULL + 2));
});

test("loops that begin at other places lose and repeat nothing", async (t) => {
  const { server, client } = start(t);
  await server.grow(50);
  const first = taken(client.events(LOG, { after: 20 }));
  await server.settled();
  const earlier = taken(client.events(LOG, { after: 10 }));
  const later = taken(client.events(LOG, { after: 45 }));
  const newest = taken(client.events(LOG, { tail: 3 }));
  await server.grow(2);
  assert.deepEqual([first, earlier, later, newest], [upTo(52, 21), upTo(52, 11), upTo(52, 46), upTo(52, 48)]);
});

test("a loop ends where its log began anew, and the next one goes on", async (t) => {
  const { server, client } = start(t);
  let end;
  const found = taken(client.events(LOG, { after: 0 }), (failure) => (end = failure));
  await server.grow(3);
  await server.restart(2);
  await server.grow(2);
  assert.ok(end instanceof LogGone && end.code === "restarted");
  assert.deepEqual(found, upTo(3), "nothing of the other epoch");
  assert.deepEqual(client.toJSON().positions, {});
  const again = taken(client.events(LOG));
  await server.grow(2);
  assert.deepEqual(again, [5, 6]);
});

test("a loop goes on where only the subscription was ended", async (t) => {
  const { server, client } = start(t);
  client.subscribe(LOG);
  const found = taken(client.events(LOG));
  await server.settled();
  client.unsubscribe(LOG);
  await server.grow(3);
  assert.deepEqual(found, upTo(3));
});

test("what no server takes is refused at once, and costs other logs nothing", async (t) => {
  const { server, client } = start(t);
  const wrong = [[LOG.toUpperCase(), {}], [LOG.slice(8), {}], [LOG, { tail: 201 }], [LOG, { tail: 1.5 }], [LOG, { after: -1 }], [LOG, { after: 1, epoch: 2 ** 53 }]];
  for (const [log, beginning] of wrong) {
    assert.throws(() => client.subscribe(log, beginning), OpenGuildError);
    await assert.rejects(client.events(log, beginning).next(), OpenGuildError);
  }
  const found = taken(client.events(LOG));
  await server.grow(2);
  assert.deepEqual(found, [1, 2]);
  assert.deepEqual(Object.keys(client.toJSON().positions), [LOG]);
});

test("a loop ends with whatever code its log is gone, and the log may be followed again", { timeout: 5_000 }, async (t) => {
  for (const code of ["access_lost", "of_a_newer_release"]) {
    const { server, client, heard } = start(t);
    client.subscribe(LOG);
    const loop = client.events(LOG).next();
    await server.settled();
    for (const socket of server.sockets) socket.say({ type: "gone", log: LOG, code });
    await assert.rejects(loop, (end) => end instanceof LogGone && end.code === code);
    const again = client.events(LOG);
    const first = again.next();
    await server.grow(1);
    assert.equal((await first).value.sequence, 1);
    await again.return(); // the subscription is gone
    await server.grow(1);
    assert.deepEqual(heard, [1]);
  }
});
