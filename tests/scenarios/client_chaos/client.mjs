// The scenario of run.py with docs/web/openguild.js: two users and a bot that restarts, through a server that injects faults from a seed.
// node --experimental-websocket client.mjs URL SEED POSTS; prints the outcome as JSON.
import { ApiError, Client, ConnectionEnded, OutcomeUnknown } from "../../../docs/web/openguild.js";
import { isTemporary } from "../../../docs/web/openguild/errors.js";

const [url, seed, posts] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const PASSWORD = "correct horse battery";
const LEVEL_MS = 240_000;

/** Return a generator of numbers in [0, 1) from a seed (mulberry32). */
function chances(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
async function eventually(condition) {
  const deadline = performance.now() + LEVEL_MS;
  while (!condition()) {
    if (performance.now() > deadline) return false;
    await pause(50);
  }
  return true;
}

/** The events of each log that one user has received. */
class Reader {
  heard = new Map();
  begun = new Map();
  interruptions = 0;

  listen(client) {
    client.on("followed", ({ log, after }) => this.begun.has(log) || this.begun.set(log, after));
    client.on("event", ({ log, sequence }) => this.heard.set(log, [...(this.heard.get(log) ?? []), sequence]));
    client.on("status", ({ state }) => (this.interruptions += state === "waiting" ? 1 : 0));
    return client;
  }
}

/** Register and log in. A registration is not retried: after an unknown outcome the account may exist. */
async function enter(client, name) {
  for (;;) {
    try {
      await client.register(name, PASSWORD);
    } catch (failure) {
      if (!(failure instanceof ApiError || failure instanceof OutcomeUnknown)) throw failure;
      if (failure.code !== "username_taken") {
        await pause(200);
        continue;
      }
    }
    return await client.login(name, PASSWORD);
  }
}

/** Retry with the same key after an unknown outcome, as docs/client-js.md says. */
async function known(client, send) {
  let key;
  for (;;) {
    try {
      return await send(key);
    } catch (failure) {
      if (failure instanceof OutcomeUnknown) key = failure.key;
      else if (failure instanceof ApiError ? !isTemporary(failure.status) : !(failure instanceof ConnectionEnded) || client.status.state === "ended") throw failure;
    }
  }
}

async function write(client, name, channels, chance) {
  const mine = [];
  const oneOf = (things) => things[Math.floor(chance() * things.length)];
  for (let number = 0; number < posts; number += 1) {
    const channel = oneOf(channels);
    mine.push([channel, await known(client, (key) => client.post(channel, `${name} ${number}`, { key }))]);
    const [where, post] = oneOf(mine);
    if (chance() < 0.3) await known(client, (key) => client.edit(where, post.event_id, `${name} edits ${number}`, { key }));
    const emoji = oneOf(["👍", "🎉", "🫖"]);
    if (chance() < 0.3) await known(client, (key) => client.react(where, post.event_id, emoji, { key }));
    await pause(chance() * 400);
  }
}

/** Stop at some event and resume from the stored state. Return the function that stops it for good. */
function restartingBot(first, reader, chance) {
  let client = first;
  let left = 0;
  const begin = () => {
    left = 10 + Math.floor(chance() * 30);
    reader.listen(client);
    client.on("event", () => {
      left -= 1;
      if (left !== 0) return;
      const stored = JSON.parse(JSON.stringify(client));
      client.close();
      client = Client.fromJSON(stored);
      begin();
    });
    const current = client;
    current.followAll().catch((failure) => current.status.state === "ended" || Promise.reject(failure));
  };
  begin();
  return () => client.close();
}

async function history(client, channel) {
  const events = [];
  for (;;) {
    const page = await client.logPage(`channel:${channel}`, { since: events.at(-1)?.sequence ?? 0, limit: 200 });
    if (page.length === 0) return events;
    events.push(...page);
  }
}

const chance = chances(seed);
const [alice, bob, bot] = [1, 2, 3].map(() => new Client(url));
const names = new Map([[alice, `alice-${seed}`], [bob, `bob-${seed}`], [bot, `bot-${seed}`]]);
for (const [client, name] of names) await enter(client, name);
const { guild_id: guild } = await alice.createGuild("tea");
const channels = [];
for (const name of ["one", "two"]) channels.push((await alice.createChannel(guild, name)).channel_id);
const { code } = await alice.createInvite(guild);
for (const client of [bob, bot]) await client.acceptInvite(code);
const readers = [alice, bob].map((client) => {
  const reader = new Reader();
  reader.listen(client);
  return reader;
});
const botReader = new Reader();
readers.push(botReader);
await Promise.all([alice.followAll(), bob.followAll()]);
const endBot = restartingBot(bot, botReader, chances(seed + 1));
const logs = channels.map((channel) => `channel:${channel}`);
await eventually(() => readers.every(({ begun }) => logs.every((log) => begun.has(log))));
await Promise.all([alice, bob].map((client, place) => write(client, names.get(client), channels, chances(seed * 10 + place))));
const stored = new Map();
for (const channel of channels) stored.set(`channel:${channel}`, await history(alice, channel));
const isLevel = ({ heard }) => [...stored].every(([log, events]) => Math.max(0, ...(heard.get(log) ?? [])) >= events.length);
await eventually(() => readers.every(isLevel));
endBot();
for (const client of [alice, bob]) client.close();

const texts = [...stored.values()].flat().filter(({ event }) => event.event_type === "message").map(({ event }) => event.content.content);
const different = new Set(texts).size;
const missing = ({ begun, heard }) => {
  let count = 0;
  for (const [log, events] of stored) {
    const had = new Set(heard.get(log) ?? []);
    for (let sequence = begun.get(log) + 1; sequence <= events.length; sequence += 1) count += had.has(sequence) ? 0 : 1;
  }
  return count;
};
const sum = (count) => readers.reduce((total, reader) => total + count(reader), 0);
const overLogs = (count) => sum(({ heard }) => [...heard.values()].reduce((total, sequences) => total + count(sequences), 0));
console.log(JSON.stringify({
  posts: texts.length, missing: sum(missing), repeated: overLogs((heard) => heard.length - new Set(heard).size),
  unordered: overLogs((heard) => (heard.every((sequence, place) => place === 0 || heard[place - 1] <= sequence) ? 0 : 1)),
  doubled: texts.length - different + Math.abs(different - 2 * posts), interruptions: sum(({ interruptions }) => interruptions),
}));
process.exit(0);
