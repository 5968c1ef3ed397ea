// The page's state, without a browser and with a fake client: called by test_page.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError } from "../../docs/web/openguild.js";
import { Chat } from "../../docs/web/page/chat.js";

globalThis.document = { hidden: false };
const [GUILD, CHANNEL] = ["guild:g", "channel:c"];
const BOB = { id: "bob", username: "bob" };

const channel = (id, name = id) => ({ channel_id: id, guild_id: "g", name, created_at: "2026-01-01T00:00:00Z", epoch: 1 });
const member = (id, role = "member") => ({ guild_id: "g", user_id: id, username: id, role, joined_at: "2026-01-01T00:00:00Z" });
const message = (sequence) => {
  const fixed = { channel_id: "c", author: BOB, created_at: "2026-01-01T00:00:00Z" };
  return { ...fixed, event_id: `$${sequence}`, sequence, content: `text ${sequence}` };
};

/** A fake client: the server's state, and the events for the page. */
class FakeClient {
  status = { state: "online" };
  name = "Garden";
  channelList = [channel("c"), channel("d")];
  memberList = [member("me", "owner"), member("bob")];
  online = [{ user_id: "bob", status: "online" }];
  page = { epoch: 1, head: 2, messages: [message(1), message(2)] };
  positions = {};
  subscribed = [];
  #listeners = {};
  /** Names of calls to answer later, and their answers. */
  held = new Map();

  on(name, listener) {
    this.#listeners[name] ??= new Set();
    this.#listeners[name].add(listener);
    return () => this.#listeners[name].delete(listener);
  }
  tell(name, told) {
    for (const listener of [...(this.#listeners[name] ?? [])]) listener(told);
  }
  event(log, sequence, event_type, content, more = {}) {
    this.positions[log] = [1, sequence];
    const fixed = { event_id: `$${sequence}`, room_id: "c", sender: "bob", origin_ts: Date.UTC(2026, 1) };
    const event = { ...fixed, event_type, content, ...more };
    this.tell("event", { log, epoch: 1, sequence, event });
  }
  followed(log, after, more = {}) {
    this.positions[log] = [1, after];
    this.tell("followed", { log, epoch: 1, after, head: after, recovered: true, ...more });
  }
  /** Answer with the current state, but only when `release` is called. */
  hold(name) {
    this.held.set(name, null);
  }
  release(name) {
    const go = this.held.get(name);
    this.held.delete(name);
    go();
  }
  async #answer(name, value) {
    if (this.held.has(name)) await new Promise((resolve) => this.held.set(name, resolve));
    return value;
  }
  connect() {
    return this.#answer("connect", { user: { user_id: "me", username: "me" } });
  }
  tellGuild(channels) {
    this.tell("guild", { guild_id: "g", name: this.name, created_at: "2026-01-01T00:00:00Z", channels });
  }
  async followAll() {
    this.tellGuild(this.channelList);
  }
  unread = () => this.#answer("unread", this.unreadList ?? []);
  guild = () => this.#answer("guild", { guild_id: "g", name: this.name, created_at: "2026-01-01T00:00:00Z" });
  channels = () => this.#answer("channels", [...this.channelList]);
  members = () => this.#answer("members", [...this.memberList]);
  presence = () => this.#answer("presence", { shown: true, members: [...this.online] });
  messages = () => this.#answer("messages", { ...this.page, messages: [...this.page.messages] });
  read = async () => {};
  toJSON() {
    return { positions: this.positions };
  }
  subscribe(log, beginning = {}) {
    this.subscribed.push({ log, ...beginning });
  }
}

/** Return a chat with channel `c` open, and its notifications. */
async function opened(prepare = () => {}) {
  const client = new FakeClient();
  const told = { heard: [], forgotten: [], failures: [] };
  const heard = ({ content }) => told.heard.push(content);
  const chat = new Chat(client, () => {}, heard, (id) => told.forgotten.push(id), (failure) => told.failures.push(failure));
  prepare(client);
  await chat.start();
  await chat.openGuild("g");
  await settled();
  return { chat, client, ...told };
}
/** Wait until all possible answers have been given. */
const settled = () => new Promise((resolve) => setImmediate(resolve));
const names = (chat) => chat.channels.map(({ name }) => name);
const texts = (chat) => chat.history.messages?.map(({ content }) => content);

test("a chat begins without unread counts where they cannot be had", async () => {
  const { chat, client, failures } = await opened((client) => {
    client.unread = () => Promise.reject(new Error("no response in time"));
  });
  assert.deepEqual([texts(chat), failures.map(String)], [["text 1", "text 2"], ["Error: no response in time"]]);
  client.event("channel:d", 1, "message", { author: BOB, content: "new" });
  assert.equal(chat.unread.of("d").unread, 1);
});

test("what cannot be followed for a while stays", async () => {
  const { chat, client } = await opened();
  for (const code of ["unavailable", "restarted"]) {
    for (const log of [CHANNEL, GUILD]) client.tell("gone", { log, code });
    assert.deepEqual([chat.guild?.guild.name, names(chat), texts(chat)], ["Garden", ["c", "d"], ["text 1", "text 2"]], code);
  }
  for (const log of [CHANNEL, GUILD]) client.followed(log, 2);
  client.event(CHANNEL, 3, "message", { author: BOB, content: "back" });
  assert.deepEqual(texts(chat), ["text 1", "text 2", "back"]);
});

test("a guild that began anew is read anew", async () => {
  const { chat, client, failures } = await opened();
  client.name = "Yard";
  client.channelList = [channel("c", "grass"), channel("e")];
  client.memberList = [member("me", "owner"), member("eve")];
  client.tell("gone", { log: GUILD, code: "restarted" });
  client.hold("channels");
  client.followed(GUILD, 5, { epoch: 2, recovered: false });
  await settled();
  client.event(GUILD, 6, "channel.created", { channel_id: "f", name: "f" }); // the list may be older
  client.release("channels");
  await settled();
  assert.deepEqual([chat.guild.guild.name, names(chat)], ["Yard", ["grass", "e", "f"]]);
  assert.deepEqual([...chat.guild.members.keys()], ["me", "eve"]);
  assert.deepEqual(client.subscribed.map(({ log }) => log), ["channel:c", "channel:e", "channel:f"]);
  assert.deepEqual(failures, []);
});

test("a guild that began anew without the open channel shows nothing of it", async () => {
  const { chat, client, failures } = await opened();
  client.subscribe = () => {
    throw new Error("full");
  };
  client.channelList = [channel("d")];
  client.followed(GUILD, 5, { epoch: 2, recovered: false });
  await settled();
  assert.deepEqual([chat.channelId, chat.history.messages, names(chat)], ["", null, ["d"]]);
  assert.deepEqual(failures.map(({ message }) => message), ["full"], "what cannot be followed is told");
});

test("what came between the page and the beginning of following comes once", async () => {
  const { chat, client, heard } = await opened();
  client.followed(CHANNEL, 4);
  assert.deepEqual(client.subscribed, [{ log: CHANNEL, epoch: 1, after: 2 }]);
  client.followed(CHANNEL, 2);
  for (const sequence of [3, 4, 5, 5]) client.event(CHANNEL, sequence, "message", { author: BOB, content: `text ${sequence}` });
  assert.deepEqual([texts(chat).length, heard, chat.unread.of("c").unread], [5, ["text 3", "text 4", "text 5"], 0]);
});

test("a channel that is followed in another epoch is read anew", async () => {
  const { chat, client } = await opened();
  client.page = { epoch: 2, head: 1, messages: [message(1)] };
  client.followed(CHANNEL, 1, { epoch: 2 });
  await settled();
  assert.deepEqual(texts(chat), ["text 1"]);
});

test("nothing is shown of a channel that is deleted, or may not be read any more", async () => {
  const refused = (code) => (client) => client.tell("refused", { log: CHANNEL, code, message: "no" });
  const ends = [
    (client) => client.event(GUILD, 3, "channel.deleted", { channel_id: "c", name: "c" }),
    (client) => client.tell("gone", { log: CHANNEL, code: "deleted" }),
    (client) => client.tell("gone", { log: CHANNEL, code: "access_lost" }),
    (client) => client.tell("gone", { log: CHANNEL, code: "of_a_later_release" }),
    refused("not_found"),
    refused("forbidden"),
  ];
  for (const end of ends) {
    const { chat, client, forgotten } = await opened();
    chat.history.isAtEnd = false;
    client.event(CHANNEL, 3, "message", { author: BOB, content: "news" });
    end(client);
    assert.deepEqual([names(chat), chat.channelId, chat.history.messages], [["d"], "", null], String(end));
    assert.equal(chat.unreadOf("g").unread, 0);
    assert.deepEqual([chat.unread.of("c").latest, forgotten], [0, ["c"]]);
  }
});

test("nothing is shown of a guild that is gone, also where that is known only later", async () => {
  for (const [name, code] of [["gone", "deleted"], ["gone", "access_lost"], ["refused", "not_found"]]) {
    const { chat, client, forgotten } = await opened();
    client.tell(name, { log: GUILD, code });
    assert.deepEqual([chat.guilds.size, chat.guildId, chat.channelId, chat.history.messages], [0, "", "", null]);
    assert.deepEqual(forgotten, ["c", "d", "g"]);
  }
});

test("a log that cannot be followed for want of room stays", async () => {
  const { chat, client } = await opened();
  client.tell("refused", { log: "channel:d", code: "limit_reached", message: "full" });
  assert.deepEqual(names(chat), ["c", "d"]);
});

test("a guild that is told again has no other channels than those that it has", async () => {
  const { chat, client } = await opened();
  Object.assign(client, { name: "Yard", channelList: [channel("d")] });
  await client.followAll();
  await settled();
  assert.deepEqual([chat.guild.guild.name, names(chat), chat.channelId], ["Yard", ["d"], ""]);
});

test("what happened to a guild before it is told is not lost", async () => {
  const { chat } = await opened((client) => {
    const listed = client.channelList;
    client.followAll = async () => {
      client.channelList = [channel("d")];
      client.event(GUILD, 1, "channel.deleted", { channel_id: "c", name: "c" });
      client.tellGuild(listed);
    };
  });
  assert.deepEqual(names(chat), ["d"]);
});

test("who went offline while there was no connection is offline", async () => {
  const { chat, client } = await opened();
  assert.equal(chat.guild.presence.get("bob"), "online");
  client.tell("ready", {});
  await settled();
  client.online = []; // without an event: the guild is not followed yet
  client.followed(GUILD, 2);
  await settled();
  assert.equal(chat.guild.presence.get("bob"), undefined);
});

test("what happens while members are being read is not undone by the answer", async () => {
  const { chat, client } = await opened((client) => {
    client.memberList.push(member("eve"));
    client.hold("members");
    client.hold("presence");
  });
  client.event(GUILD, 3, "member.removed", { user_id: "bob" });
  client.event(GUILD, 4, "member.role_set", { user_id: "eve", role: "moderator" });
  client.tell("presence", { guildId: "g", userId: "bob", status: "offline" });
  client.release("members");
  client.release("presence");
  await settled();
  const roles = [...chat.guild.members.values()].map(({ user_id: id, role }) => [id, role]);
  assert.deepEqual(roles, [["me", "owner"], ["eve", "moderator"]]);
  assert.notEqual(chat.guild.presence.get("bob"), "online");
});

test("a member who is gone is neither writing nor online", async () => {
  const ends = [
    (client) => client.event(GUILD, 3, "member.left", { user_id: "bob" }),
    (client) => client.event(GUILD, 3, "member.removed", { user_id: "bob" }),
    (client) => client.tell("presence", { guildId: "g", userId: "bob", status: "offline" }),
  ];
  for (const end of ends) {
    const { chat, client } = await opened();
    client.tell("typing", { channelId: "c", userId: "bob", preview: null });
    assert.deepEqual(chat.typing.users.map(({ id }) => id), ["bob"]);
    end(client);
    assert.deepEqual([chat.typing.users.map(({ id }) => id), chat.guild.presence.get("bob") === "online"], [[], false], String(end));
  }
});

test("nobody is writing where there is no connection any more", async () => {
  const { chat, client } = await opened();
  client.tell("typing", { channelId: "c", userId: "bob", preview: null });
  client.tell("status", { state: "waiting" });
  assert.equal(chat.typing.users.length, 0);
});

test("a message that was taken back before it came is not read out", async () => {
  const { chat, client, heard } = await opened();
  client.event(CHANNEL, 3, "message", { content: "", redacted_by: "$9" });
  assert.deepEqual([chat.history.messages.at(-1).redacted_by, heard], ["$9", []]);
});

test("unread counts of a channel that began anew are read anew", async () => {
  const { chat, client } = await opened();
  client.event("channel:d", 9, "message", { author: BOB, content: "x" });
  assert.equal(chat.unread.of("d").unread, 1);
  client.unreadList = [{ channel_id: "d", unread: 0, mentions: 0, latest_sequence: 2 }];
  client.followed("channel:d", 2, { epoch: 2, recovered: false });
  await settled();
  assert.deepEqual(chat.unread.of("d"), { unread: 0, mentions: 0, newest: 2, latest: 2 });
  client.event("channel:d", 3, "message", { author: BOB, content: "x" });
  assert.equal(chat.unread.of("d").unread, 1);
});

test("waiting for a guild ends when it comes, is gone, or does not come", async (t) => {
  const { chat, client } = await opened();
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const ends = [
    [() => client.tell("guild", { guild_id: "h", name: "H", created_at: "2026-01-01T00:00:00Z", channels: [] }), undefined],
    [() => client.tell("gone", { log: "guild:h", code: "access_lost" }), "The guild is gone again."],
    [() => client.tell("refused", { log: "guild:h", code: "not_found", message: "no" }), "The guild is gone again."],
    [() => client.tell("status", { state: "ended" }), "The connection has ended before the guild appeared."],
    [() => t.mock.timers.tick(30_000), "The guild has not appeared within 30 seconds. It will appear in the list later."],
  ];
  for (const [end, expected] of ends) {
    chat.guilds.delete("h");
    const outcomes = [];
    const text = (failure) => failure.message;
    const wait = () => chat.arrived("h").then(() => undefined, text).then((outcome) => outcomes.push(outcome));
    wait();
    wait();
    await settled();
    assert.deepEqual(outcomes, []);
    end();
    await settled();
    assert.deepEqual(outcomes, [expected, expected], String(end));
  }
});

test("what is written and read while the unread counts are on their way is counted", async () => {
  const { chat, client } = await opened();
  client.unreadList = [
    { channel_id: "c", unread: 2, mentions: 0, latest_sequence: 2 },
    { channel_id: "d", unread: 5, mentions: 1, latest_sequence: 10 },
  ];
  client.hold("unread");
  const asking = chat.unread.ask();
  await settled();
  client.event(`user:me`, 1, "channel.read", { channel_id: "c", last_read_sequence: 2 });
  client.event("channel:d", 11, "message", { author: BOB, content: "x", mentions: { users: ["me"] } });
  client.release("unread");
  await asking;
  assert.deepEqual([chat.unread.of("c").unread, chat.unread.of("d")], [0, { unread: 6, mentions: 2, newest: 11, latest: 11 }]);
  assert.equal(chat.unreadOf("g").mentions, 2);
});

test("a guild that is gone while it is being read is no problem to tell of", async () => {
  const gone = async () => Promise.reject(new ApiError(404, "not_found", "no"));
  const { client, failures } = await opened((client) => Object.assign(client, { members: gone, presence: gone }));
  client.messages = gone;
  client.followed(GUILD, 5, { epoch: 2, recovered: false });
  client.followed(CHANNEL, 5, { epoch: 2, recovered: false });
  await settled();
  client.tell("gone", { log: GUILD, code: "access_lost" });
  assert.deepEqual(failures, []);
  const other = await opened((client) => (client.members = async () => Promise.reject(new Error("no"))));
  assert.equal(other.failures.length, 1);
});

test("a message that was stored in a log that began anew is not on its way, and the user is told", async () => {
  const { chat, client, failures } = await opened();
  const outgoing = { channelId: "c", content: "x", key: "k", failure: null, sequence: null };
  client.post = async () => ({ sequence: 9 });
  await chat.outbox.send({ ...outgoing });
  client.post = async () => Promise.reject(new Error("no"));
  await chat.outbox.send({ ...outgoing, content: "not stored" });
  assert.deepEqual(chat.outbox.items.map(({ content }) => content), ["x", "not stored"]);
  client.page = { epoch: 2, head: 1, messages: [message(1)] };
  client.followed(CHANNEL, 1, { epoch: 2, recovered: false });
  await settled();
  assert.deepEqual(chat.outbox.items.map(({ content }) => content), ["not stored"]);
  const told = "The server has restored this channel: its newest messages may be missing.";
  assert.deepEqual(failures.map(({ message }) => message), [told]);
  client.followed("channel:d", 1, { epoch: 2, recovered: false });
  await settled();
  assert.equal(failures.length, 1, "of the channel that is looked at");
});

test("members that are read while the guild is read again stay", async () => {
  const { chat, client } = await opened((client) => {
    client.hold("channels");
    client.event(GUILD, 1, "guild.updated", { name: "Garden" });
  });
  assert.equal(chat.role, "owner");
  client.release("channels");
  await settled();
  assert.equal(chat.role, "owner");
});

test("one who is timed out has no buttons of a moderator until it is over, and an owner keeps theirs", async () => {
  const { chat, client } = await opened((client) => (client.memberList = [member("me", "moderator"), member("bob")]));
  const [past, until] = ["2026-01-01T00:00:00Z", "9999-01-01T00:00:00Z"];
  const told = (sequence, type, content) => client.event(GUILD, sequence, type, { user_id: "me", ...content });
  const shown = () => [chat.role, chat.mayModerate, chat.timedOutUntil];
  told(1, "member.timed_out", { until });
  assert.deepEqual(shown(), ["viewer", false, Date.parse(until)]);
  told(2, "member.role_set", { role: "owner" });
  assert.deepEqual(shown(), ["owner", true, 0]);
  told(3, "member.role_set", { role: "moderator" });
  told(4, "member.timed_out", { until: past });
  assert.deepEqual(shown(), ["moderator", true, 0]);
  told(5, "member.joined", { username: "me", role: "member", timed_out_until: until });
  assert.deepEqual(shown(), ["viewer", false, Date.parse(until)]);
  told(6, "member.timed_out", {});
  assert.deepEqual(shown(), ["member", false, 0]);
});
