// The logs that followAll follows while guilds and logs come and go, with an in-memory server: called by test_javascript_client.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnectionEnded } from "../../docs/web/openguild.js";
import { FakeServer, idOf, json, ME } from "./fake_server.mjs";

const OWN = `user:${ME}`;
const listing = (guildId) => `GET /guilds/${guildId}/channels`;
const ids = (guilds) => guilds.map((guild) => guild.guild_id);

/** Return a client, its events, and a server. */
function begin(t, options) {
  const server = new FakeServer();
  const client = server.client(t, options);
  const heard = [];
  const told = [];
  const failures = [];
  client.on("message", ({ log, sequence }) => heard.push(`${log} ${sequence}`));
  client.on("guild", ({ guild_id: id, name, channels }) => told.push([id, name, channels.map((channel) => channel.channel_id)]));
  client.on("failure", (failure) => failures.push(failure));
  t.after(() => assert.deepEqual(failures, []));
  return { server, client, heard, told };
}
const say = (server, channelId) => server.append(`channel:${channelId}`, "message", { content: "hello" });
const join = (server, guildId) => server.append(OWN, "guild.joined", { guild_id: guildId, name: "g", role: "member" });

test("a guild that is lost while it is listed is left out", { timeout: 5_000 }, async (t) => {
  for (const code of ["access_lost", "deleted"]) {
    const { server, client, told } = begin(t);
    const [kept, lost] = [server.addGuild(10, [11]), server.addGuild(20, [21])];
    const { arrived, release } = server.hold(listing(lost));
    const following = client.followAll();
    await arrived;
    server.answers.set(listing(lost), () => json(200, [{ channel_id: idOf(21) }], { "x-openguild-head": "2" })); // the list was read before
    server.end(`guild:${lost}`, code);
    release();
    assert.deepEqual(ids(await following), [kept]);
    assert.deepEqual(told, [[kept, "guild 10", [idOf(11)]]]);
  }
});

test("a guild that is gone before its log is followed, or while it is told, is left out", { timeout: 5_000 }, async (t) => {
  const { server, client } = begin(t);
  const [kept, lost, late] = [10, 20, 30].map((number) => server.addGuild(number, [number + 1]));
  client.on("ready", () => server.end(`guild:${lost}`));
  client.on("guild", ({ guild_id: id }) => id === late && (server.end(`channel:${idOf(31)}`), server.end(`guild:${late}`)));
  assert.deepEqual(ids(await client.followAll()), [kept]);
});

test("a log that is unsubscribed meanwhile is not awaited", { timeout: 5_000 }, async (t) => {
  const { server, client } = begin(t);
  const [one, two] = [server.addGuild(10, [11]), server.addGuild(20, [21])];
  client.on("guild", ({ guild_id: id }) => id === one && client.unsubscribe(`channel:${idOf(11)}`));
  const { arrived, release } = server.hold(listing(two));
  const following = client.followAll();
  await arrived;
  client.unsubscribe(`guild:${two}`);
  assert.deepEqual(ids(await following), [one]);
  release();
});

test("a listing is repeated while the server cannot answer", { timeout: 5_000 }, async (t) => {
  const { server, client } = begin(t, { retryMs: 1 });
  const guildId = server.addGuild(10, [11]);
  let failures = 3;
  server.answers.set(listing(guildId), () => {
    if ((failures -= 1) === 0) server.answers.clear();
    return json(503, { error: "database_unavailable", message: "" });
  });
  assert.deepEqual(ids(await client.followAll()), [guildId]);
});

test("followAll rejects where the connection ends before all is followed", { timeout: 5_000 }, async (t) => {
  const { server, client } = begin(t);
  const { arrived, release } = server.hold(listing(server.addGuild(10)));
  const following = client.followAll();
  await arrived;
  client.close();
  await assert.rejects(following, ConnectionEnded);
  release();
});

test("channels that were made while a guild's log began anew are followed from their beginning", async (t) => {
  const { server, client, heard, told } = begin(t);
  const guildId = server.addGuild(10, [11]);
  await client.followAll();
  server.restart(`guild:${guildId}`, () => {
    server.guilds.get(guildId).name = "renamed";
    say(server, server.addChannel(guildId, 12));
  });
  await server.settled();
  assert.deepEqual(heard, [`channel:${idOf(12)} 1`]);
  assert.deepEqual(told.slice(1), [[guildId, "renamed", [idOf(11), idOf(12)]]]);
  say(server, server.addChannel(guildId, 13));
  say(server, idOf(11));
  await server.settled();
  assert.deepEqual(heard.slice(1).sort(), [`channel:${idOf(11)} 1`, `channel:${idOf(13)} 1`]);
});

test("guilds that were joined while the user's log began anew are followed", async (t) => {
  const { server, client, heard } = begin(t);
  await client.followAll();
  server.restart(OWN, () => {
    server.addGuild(10, [11]);
    server.logs.set(`channel:${idOf(21)}`, { epoch: 1, events: [] });
    server.channelsByRole.push({ channel_id: idOf(21), guild_id: idOf(20) });
  });
  await server.settled();
  for (const number of [11, 21]) say(server, idOf(number));
  await server.settled();
  assert.deepEqual(heard, [`channel:${idOf(11)} 1`, `channel:${idOf(21)} 1`]);
});

test("a channel in which one is given a role is followed, and one of before", async (t) => {
  const { server, client, heard } = begin(t);
  for (const number of [21, 22]) server.logs.set(`channel:${idOf(number)}`, { epoch: 1, events: [] });
  server.channelsByRole.push({ channel_id: idOf(21), guild_id: idOf(20) });
  await client.followAll();
  server.append(OWN, "channel.role_given", { channel_id: idOf(22), guild_id: idOf(20), role: "member" });
  await server.settled();
  for (const number of [21, 22]) say(server, idOf(number));
  await server.settled();
  assert.deepEqual(heard, [`channel:${idOf(21)} 1`, `channel:${idOf(22)} 1`]);
});

test("logs beyond the bound of a socket are refused, one by one, and the others are followed", { timeout: 10_000 }, async (t) => {
  const { server, client, heard } = begin(t);
  const channels = Array.from({ length: 1_010 }, (_, place) => 1_000 + place);
  const guildId = server.addGuild(10, channels);
  const refused = [];
  client.on("refused", ({ log, code }) => refused.push([log, code]));
  assert.deepEqual(ids(await client.followAll()), [guildId]);
  const followed = channels.splice(0, 998); // besides the logs of the user and of the guild
  assert.deepEqual(refused, channels.map((number) => [`channel:${idOf(number)}`, "limit_reached"]));
  say(server, idOf(followed.at(-1)));
  const later = server.addGuild(20, [21]);
  join(server, later);
  await server.settled();
  assert.deepEqual(heard, [`channel:${idOf(followed.at(-1))} 1`]);
  assert.deepEqual(refused.at(-1), [`guild:${later}`, "limit_reached"]);
  server.end(`channel:${idOf(followed[0])}`);
  await server.settled();
  join(server, later);
  await server.settled();
  assert.equal(client.isFollowed(`guild:${later}`), true);
});

test("many channels are asked for together: a socket takes 600 frames in a minute", async (t) => {
  const { server, client } = begin(t);
  server.addGuild(10, Array.from({ length: 500 }, (_, place) => 1_000 + place));
  server.addGuild(20, Array.from({ length: 100 }, (_, place) => 2_000 + place));
  await client.followAll();
  const subs = server.frames.filter((type) => type === "sub").length;
  assert.ok(subs < 10, `${subs} frames`);
});

test("a guild that is joined again is told again, whether or when its loss is told", async (t) => {
  for (const loss of ["none", "late", "early"]) {
    const { server, client, heard, told } = begin(t);
    const guildId = server.addGuild(10, [11]);
    await client.followAll();
    const [socket] = server.sockets;
    const lose = async () => {
      for (const log of [`guild:${guildId}`, `channel:${idOf(11)}`]) {
        socket.followed.delete(log);
        socket.say({ type: "gone", log, code: "access_lost" });
      }
      await server.settled();
    };
    say(server, idOf(11));
    server.append(OWN, "guild.left", { guild_id: guildId });
    if (loss === "early") await lose();
    join(server, guildId);
    if (loss === "late") await lose();
    await server.settled();
    say(server, idOf(11));
    await server.settled();
    assert.deepEqual(heard, [1, 2].map((sequence) => `channel:${idOf(11)} ${sequence}`), loss);
    assert.deepEqual(told.map(([id]) => id), [guildId, guildId], loss);
    server.append(OWN, "guild.left", { guild_id: guildId });
    const refused = [];
    client.on("refused", ({ log }) => refused.push(log));
    await lose();
    assert.deepEqual(refused, [], "it is not asked for again");
  }
});

test("a guild that was joined again and is deleted is not asked for again", async (t) => {
  const { server, client } = begin(t);
  const guildId = server.addGuild(10, [11]);
  await client.followAll();
  server.append(OWN, "guild.left", { guild_id: guildId });
  join(server, guildId); // during an outage, so no loss is reported
  await server.settled();
  const ends = [];
  for (const name of ["gone", "refused"]) client.on(name, ({ log, code }) => ends.push([log, code]));
  server.end(`guild:${guildId}`, "deleted");
  await server.settled();
  assert.deepEqual(ends, [[`guild:${guildId}`, "deleted"]]);
});

test("a new channel that is followed already is not told twice", async (t) => {
  const { server, client, heard } = begin(t);
  const guildId = server.addGuild(10);
  await client.followAll();
  server.logs.set(`channel:${idOf(11)}`, { epoch: 1, events: [] });
  client.subscribe(`channel:${idOf(11)}`, { after: 0 }); // the answer about its creation comes before the event
  say(server, idOf(11));
  await server.settled();
  server.addChannel(guildId, 11);
  say(server, idOf(11));
  await server.settled();
  assert.deepEqual(heard, [`channel:${idOf(11)} 1`, `channel:${idOf(11)} 2`]);
});

test("what a listener stores at the creation of a channel goes on at its beginning", async (t) => {
  const { server, client, heard } = begin(t);
  const guildId = server.addGuild(10);
  let stored;
  const store = ({ event }) => event.event_type === "channel.created" && (stored = client.toJSON());
  client.on("event", store);
  await client.followAll();
  const channelId = server.addChannel(guildId, 11);
  await server.settled();
  client.close();
  say(server, channelId);
  const again = server.client(t, { positions: stored.positions });
  again.on("message", ({ log, sequence }) => heard.push(`${log} ${sequence}`));
  await again.followAll();
  await server.settled();
  assert.deepEqual(heard, [`channel:${channelId} 1`]);
});

test("a session that ends while a guild is listed is told by the connection alone", async (t) => {
  const { server, client } = begin(t); // no `failure` event is expected
  await client.followAll();
  const guildId = server.addGuild(10);
  server.answers.set(listing(guildId), () => json(401, { error: "unauthorized", message: "" }));
  server.answers.set("POST /sessions/refresh", () => json(401, { error: "invalid_refresh_token", message: "" }));
  join(server, guildId);
  await server.settled();
  const [socket] = server.sockets;
  socket.end(4005);
  assert.deepEqual([client.isLoggedIn, client.status.state], [false, "ended"]);
});

test("logs that are followed before followAll, or before a guild is joined, are no hindrance", { timeout: 5_000 }, async (t) => {
  const { server, client, told } = begin(t);
  const guildId = server.addGuild(10, [11]);
  const joined = [];
  client.on("channel.created", ({ log, sequence }) => joined.push(`${log} ${sequence}`));
  await client.connect();
  for (const log of [OWN, `guild:${guildId}`, `channel:${idOf(11)}`]) client.subscribe(log, { after: 0 });
  await server.settled();
  assert.deepEqual(ids(await client.followAll()), [guildId]);
  const later = server.addGuild(20, [21]);
  client.subscribe(`guild:${later}`);
  await server.settled();
  join(server, later);
  await server.settled();
  assert.deepEqual(told.map(([id]) => id), [guildId, later]);
  assert.deepEqual(joined, [`guild:${guildId} 2`], "once");
});

test("followAll may be repeated, and tells no guild twice", async (t) => {
  const { server, client, told } = begin(t);
  const guildId = server.addGuild(10, [11]);
  assert.deepEqual((await Promise.all([client.followAll(), client.followAll()])).map(ids), [[guildId], [guildId]]);
  const later = server.addGuild(20);
  join(server, later);
  await server.settled();
  assert.deepEqual(ids(await client.followAll()), [guildId, later]);
  assert.deepEqual(told.map(([id]) => id), [guildId, later]);
});

test("a guild is told with a channel that was made while its list was on its way", { timeout: 5_000 }, async (t) => {
  const { server, client, told } = begin(t);
  const guildId = server.addGuild(10, [11]);
  const { arrived, release } = server.hold(listing(guildId));
  const following = client.followAll();
  await arrived;
  server.answers.set(listing(guildId), () => {
    server.answers.clear();
    return json(200, [{ channel_id: idOf(11) }], { "x-openguild-head": "2" }); // the list was read before
  });
  server.addChannel(guildId, 12);
  await server.settled();
  release();
  await following;
  assert.deepEqual(told, [[guildId, "guild 10", [idOf(11), idOf(12)]]]);
});

test("a guild is told with the name that it has at that place", async (t) => {
  const { server, client, told } = begin(t);
  const guildId = server.addGuild(10);
  const { arrived, release } = server.hold(listing(guildId));
  const following = client.followAll();
  await arrived;
  server.append(`guild:${guildId}`, "guild.updated", { name: "renamed" });
  await server.settled();
  release();
  await following;
  assert.deepEqual(told, [[guildId, "renamed", []]]);
});
