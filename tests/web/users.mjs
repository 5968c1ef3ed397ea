// Users of a real server, and helpers that wait for their events.
import assert from "node:assert/strict";
import { Client } from "../../docs/web/openguild.js";

export const { URL_OF_SERVER: url, DIRECT: direct, CONTROL: control } = process.env;
export const PASSWORD = "correct horse battery";

/** @param {string} name */
export const command = async (name) => assert.equal((await fetch(`${control}/${name}`, { method: "POST" })).status, 200);

let numbers = 0;

/** Return a new user who is logged in; their client is closed with the test. */
export async function user(t, options = {}) {
  const client = new Client(options.url ?? url, options);
  t.after(() => client.close());
  client.username = `user-${process.pid}-${(numbers += 1)}`;
  client.userId = await client.register(client.username, PASSWORD);
  await client.login(client.username, PASSWORD);
  return client;
}

/** Return a user with a guild and a channel. */
export async function owner(t, options) {
  const alice = await user(t, options);
  const { guild_id: guildId } = await alice.createGuild("guild");
  const { channel_id: channelId } = await alice.createChannel(guildId, "general");
  return { alice, guildId, channelId, log: `channel:${channelId}` };
}

/** Return the next event of this name that passes the check; reject with its name if none comes. */
export function next(client, name, check = () => true) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`${client.username} was told no such ${name} within a minute`)), 60_000).unref();
    const stop = client.on(name, (told) => check(told) && (stop(), clearTimeout(late), resolve(told)));
  });
}

/** Return the sequences that a loop over a log yields, up to the last one. */
export async function sequences(client, log, last, beginning = { after: 0 }) {
  const found = [];
  for await (const { sequence } of client.events(log, beginning)) {
    found.push(sequence);
    if (sequence >= last) break;
  }
  return found;
}

export const upTo = (last, from = 1) => Array.from({ length: last - from + 1 }, (_, place) => from + place);
