// docs/web/openguild.js against a real server, behind a link that can be cut and stopped: node --test, called by test_javascript_client.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError, Client, ConnectionEnded, foldMessages, LogGone, OutcomeUnknown } from "../../docs/web/openguild.js";
import { sendUntilAnswered } from "../../docs/web/openguild/retries.js";
import { command, direct, next, owner, PASSWORD, sequences, upTo, url, user } from "./users.mjs";

test("a user registers, logs in, posts and reads", async (t) => {
  const { alice, channelId, log } = await owner(t);
  const heard = next(alice, "message");
  alice.subscribe(log, { after: 0 });
  const posted = await alice.post(channelId, "hello");
  assert.equal(posted.sequence, 1);
  const { event, sequence } = await heard;
  assert.deepEqual([event.content.content, event.content.author.username, sequence], ["hello", alice.username, 1]);
  assert.deepEqual(await alice.post(channelId, "twice", { key: "k" }), await alice.post(channelId, "twice", { key: "k" }));
  await assert.rejects(alice.post(channelId, "else", { key: "k" }), (refusal) => refusal instanceof ApiError && refusal.code === "nonce_reused" && refusal.status === 409);
  await assert.rejects(alice.register(alice.username, PASSWORD), (refusal) => refusal instanceof ApiError && refusal.code === "username_taken");
  assert.equal((await alice.search({ q: "hello", in: [channelId] })).results.length, 1);
  await assert.rejects(alice.post("00000000-0000-4000-8000-000000000000", "x"), { code: "not_found", status: 404 });
});

test("a password is changed, other devices are logged out, and this session goes on", async (t) => {
  const alice = await user(t);
  const laptop = new Client(url);
  t.after(() => laptop.close());
  await laptop.login(alice.username, PASSWORD);
  await laptop.connect();
  const over = new Promise((resolve) => laptop.on("status", ({ state }) => state === "ended" && resolve()));
  let refreshes = 0;
  alice.on("session", () => (refreshes += 1));
  await assert.rejects(alice.changePassword("a wrong guess", "battery staple"), (refusal) => refusal instanceof ApiError && refusal.code === "wrong_password" && refusal.status === 403);
  await alice.changePassword(PASSWORD, "battery staple");
  await over;
  assert.equal(laptop.isLoggedIn, false);
  await assert.rejects(laptop.login(alice.username, PASSWORD), { code: "invalid_credentials" });
  await laptop.login(alice.username, "battery staple");
  await alice.createGuild("still here");
  assert.equal(refreshes, 0);
});

test("an account is deleted, and its session has ended", async (t) => {
  const alice = await user(t);
  const { guild_id: guild } = await alice.createGuild("den");
  await assert.rejects(alice.deleteAccount(PASSWORD), (refusal) => refusal instanceof ApiError && refusal.code === "last_owner" && refusal.details[0].field === guild);
  await alice.deleteGuild(guild);
  await assert.rejects(alice.deleteAccount("a wrong guess"), { code: "wrong_password", status: 403 });
  await alice.deleteAccount(PASSWORD);
  await assert.rejects(alice.deleteAccount(PASSWORD), { status: 401 });
  assert.equal(alice.isLoggedIn, false);
  await assert.rejects(alice.login(alice.username, PASSWORD), { code: "invalid_credentials" });
});

test("half an emoji is refused and ends nothing", async (t) => {
  const { alice, guildId, channelId } = await owner(t);
  const { event_id: eventId } = await alice.post(channelId, "hello");
  const half = "👍".slice(0, 1);
  const calls = [
    () => alice.post(channelId, half), () => alice.edit(channelId, eventId, `${half}!`), () => alice.redact(channelId, eventId, { reason: half }),
    () => alice.react(channelId, eventId, half), () => alice.typing(channelId, half), () => alice.post(channelId, "x", { allowedMentions: { users: [half] } }),
    () => alice.clearReactions(channelId, eventId, { emoji: half }), () => alice.createChannel(guildId, half), () => alice.search({ q: half }),
  ];
  for (const call of calls) {
    await assert.rejects(call(), (refusal) => refusal instanceof ApiError && refusal.status === 400 && refusal.code === "invalid_json", String(call));
  }
  assert.equal((await alice.post(channelId, "👍")).sequence, 2);
  assert.equal(alice.status.state, "online");
});

test("folded times have the server's form: no fraction at whole seconds", () => {
  /** @param {number} milliseconds */
  const created = (milliseconds) => {
    const event = { event_id: "$a", room_id: "c", sender: "u", event_type: "message", origin_ts: milliseconds, content: { content: "x" } };
    return foldMessages([], [{ sequence: 1, event }], { me: "u" })[0].created_at;
  };
  assert.deepEqual([created(1_000), created(1_020)], ["1970-01-01T00:00:01Z", "1970-01-01T00:00:01.020Z"]);
});

test("what two people do reaches both, and folds to what the server says", async (t) => {
  const { alice, guildId, channelId, log } = await owner(t);
  const bob = await user(t);
  const invite = await alice.createInvite(guildId, { maxUses: 1 });
  assert.equal((await bob.previewInvite(invite.code)).guild_name, "guild");
  await bob.acceptInvite(`http://127.0.0.1:8081/#invite=${invite.code}`);
  const events = [];
  alice.on("event", (event) => event.log === log && events.push(event));
  const early = await alice.messages(channelId);
  alice.subscribe(log, { epoch: early.epoch, after: early.head });
  await alice.connect();
  const one = await alice.post(channelId, "one");
  const two = await bob.post(channelId, `two <@${alice.userId}>`, { replyTo: one.event_id });
  const three = await bob.post(channelId, "three", { replyTo: one.event_id });
  await bob.post(channelId, "four", { replyTo: two.event_id });
  await alice.edit(channelId, one.event_id, "one, edited");
  await bob.react(channelId, one.event_id, "👍");
  await alice.react(channelId, one.event_id, "👍");
  await alice.react(channelId, one.event_id, "🎉");
  await bob.react(channelId, one.event_id, "👍", { action: "remove" });
  await bob.react(channelId, one.event_id, "rude");
  await bob.react(channelId, two.event_id, "rude");
  await assert.rejects(bob.clearReactions(channelId, one.event_id), { code: "forbidden" });
  const cleared = await alice.clearReactions(channelId, one.event_id, { emoji: "rude", reason: "a test", key: "clear" });
  assert.deepEqual(await alice.clearReactions(channelId, one.event_id, { emoji: "rude", reason: "a test", key: "clear" }), cleared);
  await alice.pin(channelId, two.event_id);
  await alice.pin(channelId, one.event_id);
  await alice.unpin(channelId, one.event_id);
  const half = await alice.messages(channelId);
  assert.deepEqual(half.messages[0].reactions.map(({ emoji }) => emoji), ["👍", "🎉"]);
  await alice.clearReactions(channelId, two.event_id);
  await alice.clearReactions(channelId, one.event_id, { emoji: "👍" });
  await bob.react(channelId, one.event_id, "👍");
  await bob.edit(channelId, three.event_id, "three, edited");
  await bob.redact(channelId, three.event_id);
  await alice.redact(channelId, two.event_id, { reason: "a test" });
  const last = await alice.post(channelId, "last", { replyTo: one.event_id });
  if (events.at(-1)?.sequence !== last.sequence) await next(alice, "message", (event) => event.sequence === last.sequence);
  const now = await alice.messages(channelId);
  const anew = await alice.logPage(log, { since: 0, limit: 200 }); // without the redacted texts
  for (const page of [early, half]) {
    for (const told of [events, anew]) {
      const behind = told.filter(({ sequence }) => sequence > page.head);
      assert.deepEqual(foldMessages(page.messages, behind, { me: alice.userId }), now.messages);
    }
  }
  assert.deepEqual((await alice.versions(channelId, one.event_id)).map(({ content }) => content), ["one", "one, edited"]);
  assert.deepEqual(await alice.pins(channelId), []);
  assert.equal((await bob.unread()).find((line) => line.channel_id === channelId).unread, 2, "of alice");
  assert.equal((await bob.read(channelId)).unread, 0);
  assert.deepEqual((await alice.members(guildId)).map(({ username }) => username), [alice.username, bob.username]);
  assert.deepEqual(await alice.inbox(), [], "the mention was taken back");
});

test("of the read positions of a channel only the newest is sent, at most one in a second", async (t) => {
  const frames = [];
  class Recording extends WebSocket {
    send(text) {
      frames.push(JSON.parse(text));
      super.send(text);
    }
  }
  const sent = () => frames.filter(({ type }) => type === "read").map(({ sequence }) => sequence);
  const { alice, channelId } = await owner(t, { WebSocket: Recording });
  for (const number of upTo(8)) await alice.post(channelId, `${number}`);
  const began = performance.now();
  const positions = await Promise.all(upTo(5).map((sequence) => alice.read(channelId, sequence)));
  assert.deepEqual(positions.map((position) => position.last_read_sequence), [5, 5, 5, 5, 5]);
  assert.deepEqual(sent(), [5]);
  await assert.rejects(alice.read("00000000-0000-4000-8000-000000000000", 1), { status: 404 });
  assert.ok(performance.now() - began > 950, "a second between two");
  await command("stop");
  const lost = alice.read(channelId, 6);
  while (sent().length < 3) await new Promise((resolve) => setTimeout(resolve, 20)); // it was sent, but gets no answer
  const newer = [7, 8].map((sequence) => alice.read(channelId, sequence));
  await command("cut");
  assert.deepEqual((await Promise.all([lost, ...newer])).map((position) => position.last_read_sequence), [8, 8, 8]);
  assert.deepEqual(sent(), [5, 1, 6, 8], "none of them twice");
});

test("typing and presence are told", async (t) => {
  const { alice, guildId, channelId, log } = await owner(t);
  const bob = await user(t);
  await bob.acceptInvite((await alice.createInvite(guildId)).code);
  await alice.followAll();
  const online = next(alice, "presence", ({ userId }) => userId === bob.userId);
  const typing = next(alice, "typing");
  bob.subscribe(log);
  await bob.connect();
  assert.equal((await online).status, "online");
  await bob.typing(channelId, "hel");
  assert.deepEqual(await typing, { channelId, userId: bob.userId, preview: "hel" });
  const idle = next(alice, "presence", ({ userId }) => userId === bob.userId);
  await bob.setPresence("idle");
  assert.deepEqual(await idle, { guildId, userId: bob.userId, status: "idle" });
  assert.equal((await alice.presence(guildId)).members.length, 2);
});

test("guilds and channels that come later are followed", async (t) => {
  const { alice, guildId } = await owner(t);
  const bob = await user(t);
  assert.deepEqual(await bob.followAll(), []);
  const followed = next(bob, "guild");
  await bob.acceptInvite((await alice.createInvite(guildId)).code);
  assert.equal((await followed).guild_id, guildId); // an earlier channel begins now, a later one at its beginning
  const hello = next(bob, "message", ({ event }) => event.content.content === "in a new channel");
  const { channel_id: later } = await alice.createChannel(guildId, "later");
  await alice.post(later, "in a new channel");
  assert.equal((await hello).sequence, 1);
});

test("a removed member is told that the log is gone", async (t) => {
  const { alice, guildId, channelId, log } = await owner(t);
  const bob = await user(t);
  await bob.acceptInvite((await alice.createInvite(guildId)).code);
  await alice.post(channelId, "one");
  const loop = sequences(bob, log, 99);
  await next(bob, "message");
  await alice.removeMember(guildId, bob.userId);
  await assert.rejects(loop, (end) => end instanceof LogGone && end.code === "access_lost");
  await assert.rejects(sequences(bob, log, 99), (end) => end instanceof ApiError && end.code === "not_found");
});

test("a banned user is out, is refused by code, and may come back when the ban has ended", async (t) => {
  const { alice, guildId } = await owner(t);
  const bob = await user(t);
  const { code } = await alice.createInvite(guildId);
  await bob.acceptInvite(code);
  const kinds = [];
  alice.subscribe(`guild:${guildId}`, { after: 0 });
  const isTold = next(alice, "event", ({ event }) => kinds.push(event.event_type) && event.event_type === "member.banned");
  const ban = await alice.banMember(guildId, bob.userId, { reason: "spam & more" });
  assert.deepEqual(ban, {
    guild_id: guildId, user_id: bob.userId, banned_by: alice.userId, banned_at: ban.banned_at, username: bob.username, reason: "spam & more",
  });
  const { event } = await isTold;
  assert.deepEqual([event.content.username, event.content.reason, event.sender], [bob.username, "spam & more", alice.userId]);
  assert.deepEqual(kinds.slice(-2), ["member.removed", "member.banned"]);
  await assert.rejects(bob.acceptInvite(code), (refusal) => refusal instanceof ApiError && refusal.code === "banned" && refusal.status === 403);
  await assert.rejects(bob.bans(guildId), { code: "not_found" });
  assert.deepEqual(await alice.banMember(guildId, bob.userId, { reason: "else" }), ban);
  assert.deepEqual(await alice.bans(guildId), [ban]);
  await alice.unbanMember(guildId, bob.userId, { reason: "enough" });
  await assert.rejects(alice.unbanMember(guildId, bob.userId), { code: "not_found" });
  assert.equal((await bob.acceptInvite(code)).role, "member");
});

test("a member who is timed out only reads until it is over", async (t) => {
  const { alice, guildId, channelId } = await owner(t);
  const bob = await user(t);
  await bob.acceptInvite((await alice.createInvite(guildId)).code);
  alice.subscribe(`guild:${guildId}`, { after: 0 });
  const isTold = next(alice, "event", ({ event }) => event.event_type === "member.timed_out");
  const member = await alice.timeOut(guildId, bob.userId, 600, { reason: "spam & more" });
  const { event } = await isTold;
  assert.deepEqual([event.content.user_id, event.content.until, event.content.reason], [bob.userId, member.timed_out_until, "spam & more"]);
  const refused = await bob.post(channelId, "x").catch((refusal) => refusal);
  assert.deepEqual([refused.code, refused.status, refused.retryAfter > 500], ["timed_out", 403, true]);
  await assert.rejects(bob.timeOut(guildId, alice.userId, 600), { code: "timed_out" });
  await alice.endTimeout(guildId, bob.userId);
  await assert.rejects(alice.endTimeout(guildId, bob.userId), { code: "not_found" });
  assert.equal((await bob.post(channelId, "x")).sequence, 1);
});

test("a restart is survived in a slot, by what was kept as well", async (t) => {
  const { alice, channelId, log } = await owner(t, { url: direct });
  for (const text of ["1", "2", "3"]) await alice.post(channelId, text);
  const states = [];
  alice.on("status", ({ state }) => states.push(state));
  const before = next(alice, "message", ({ sequence }) => sequence === 3);
  const loop = sequences(alice, log, 5);
  await before;
  const online = next(alice, "status", ({ state }) => state === "online");
  await command("restart");
  await alice.post(channelId, "4");
  await online;
  await command("kill");
  await alice.post(channelId, "5");
  assert.deepEqual(await loop, upTo(5));
  assert.ok(states.includes("draining") && states.includes("waiting") && states.at(-1) === "online", states.join());
  const stored = JSON.parse(JSON.stringify(alice));
  assert.deepEqual(stored.positions[log], [stored.positions[log][0], 5]);
  alice.close();
  const again = Client.fromJSON(stored);
  t.after(() => again.close());
  await again.post(channelId, "6");
  assert.deepEqual(await sequences(again, log, 6, {}), [6]);
});

test("a post whose answer is lost is stored once", async (t) => {
  const lost = { frames: 0 };
  /** Drop the answer to a command, together with the connection. */
  class Losing extends WebSocket {
    addEventListener(kind, listener) {
      super.addEventListener(kind, (event) => {
        if (kind === "message" && lost.frames > 0 && JSON.parse(event.data).type === "ok") {
          lost.frames -= 1;
          this.close();
        } else listener(event);
      });
    }
  }
  const { alice, channelId, log } = await owner(t, { WebSocket: Losing, random: () => 0 });
  await alice.connect();
  lost.frames = 2;
  const posted = await alice.post(channelId, "once");
  assert.equal(lost.frames, 0);
  const { event_id: eventId } = posted;
  lost.frames = 1;
  await alice.edit(channelId, eventId, "edited once");
  lost.frames = 1;
  await alice.react(channelId, eventId, "👍");
  await alice.post(channelId, "last");
  const types = [];
  for await (const { event } of alice.events(log, { after: 0 })) if (types.push(event.event_type) === 4) break;
  assert.deepEqual(types, ["message", "message.edited", "reaction.added", "message"]);
});

test("a wrong address of the server is refused in words", () => {
  for (const wrong of ["", "127.0.0.1:8080", "localhost:8080", "ftp://localhost", "http://localhost/path", "http://localhost/?a=b"]) {
    assert.throws(() => new Client(wrong), { message: `not a server's address: '${wrong}': expected http://host:port` });
  }
  assert.throws(() => new Client("http://alice:secret@localhost"), ({ message }) => /must not contain a user/.test(message) && !/secret/.test(message));
});

test("a listener that is no function is refused at once", () => {
  assert.throws(() => new Client("http://localhost").on("message", 5), { message: "the listener of message is no function" });
});

test("closing ends the wait of a command that was refused for a while", { timeout: 5_000 }, async () => {
  for (const [mayBeDone, kind] of [[false, ConnectionEnded], [true, OutcomeUnknown]]) {
    const closing = new AbortController();
    const gateway = { send: () => Promise.reject(new ApiError(429, "message_rate_limit", "too fast", { retryAfter: 30, mayBeDone })) };
    const sent = sendUntilAnswered(gateway, { type: "post", key: "k" }, 60_000, Math.random, closing.signal);
    setImmediate(() => closing.abort(new ConnectionEnded(null, "closed")));
    await assert.rejects(sent, kind);
  }
});

test("an outcome that nobody knows is told with its key", async (t) => {
  const { alice, channelId } = await owner(t);
  const hasty = Client.fromJSON(alice.toJSON(), { retryMs: 1_000 });
  t.after(() => hasty.close());
  await hasty.connect();
  await command("stop");
  t.after(() => command("go"));
  const failure = await hasty.post(channelId, "perhaps").catch((failure) => failure);
  assert.ok(failure instanceof OutcomeUnknown, String(failure));
  await assert.rejects(hasty.createGuild("perhaps"), OutcomeUnknown);
  await command("go");
  const other = new Client(url);
  t.after(() => other.close());
  await other.login(alice.username, PASSWORD);
  await other.post(channelId, "perhaps", { key: failure.key });
  assert.equal((await other.logPage(`channel:${channelId}`)).length, 1);
});

test("a link that is cut again and again loses and repeats nothing", async (t) => {
  const { alice, channelId, log } = await owner(t, { random: () => 0.1 });
  const bob = await user(t, { url: direct });
  await bob.acceptInvite((await alice.createInvite((await alice.channel(channelId)).guild_id)).code);
  const loop = sequences(alice, log, 40);
  const posting = (async () => {
    for (const number of upTo(20)) await bob.post(channelId, `bob ${number}`);
  })();
  const own = upTo(20).map((number) => alice.post(channelId, `alice ${number}`));
  for (let cuts = 0; cuts < 3; cuts += 1) {
    await command("cut");
    await alice.connect();
  }
  await Promise.all([posting, ...own]);
  assert.deepEqual(await loop, upTo(40));
  const texts = (await alice.messages(channelId, { limit: 200 })).messages.map(({ content }) => content);
  assert.deepEqual(texts.filter((text) => text.startsWith("alice")), upTo(20).map((number) => `alice ${number}`), "in their order");
});

test("slow readers and slow loops get everything, in order", async (t) => {
  const { alice, channelId, log } = await owner(t);
  const bob = new Client(direct);
  t.after(() => bob.close());
  await bob.login(alice.username, PASSWORD);
  const count = 1_300; // more than a loop queues, and than the link buffers
  const [told, heard] = [[], []];
  for (const kind of ["lagging", "live"]) alice.on(kind, () => told.push(kind));
  alice.on("message", ({ sequence }) => heard.push(sequence));
  alice.subscribe(log, { after: 0 });
  const loop = bob.events(log, { after: 0 });
  await alice.post(channelId, "first");
  assert.equal((await loop.next()).value.sequence, 1);
  await command("stop");
  t.after(() => command("go"));
  for (const [from, to] of [[2, 900], [901, count]]) {
    await Promise.all(upTo(to, from).map((number) => bob.post(channelId, `${number} ${"x".repeat(1_500)}`)));
  }
  const live = next(alice, "live");
  await command("go");
  await live;
  const last = next(alice, "message", ({ sequence }) => sequence === count + 1);
  await bob.post(channelId, "last");
  await last;
  assert.deepEqual(heard, upTo(count + 1));
  assert.ok(told.length >= 2 && told.every((kind, place) => kind === ["lagging", "live"][place % 2]), told.join());
  const found = [];
  for await (const { sequence } of loop) {
    found.push(sequence);
    if (sequence === count + 1) break;
  }
  assert.deepEqual(found, upTo(count + 1, 2));
});

test("loops and listeners of one log do not disturb each other", async (t) => {
  const { alice, channelId, log } = await owner(t);
  const heard = [];
  alice.on("message", ({ sequence }) => heard.push(sequence));
  await alice.followAll();
  const loops = [alice.events(log), alice.events(log)];
  const first = loops.map((loop) => loop.next());
  for (const number of upTo(20)) await alice.post(channelId, `${number}`);
  assert.deepEqual(await Promise.all(first.map(async (next) => (await next).value.sequence)), [1, 1]);
  await loops[0].return();
  await alice.post(channelId, "after the first loop");
  assert.equal((await loops[1].next()).value.sequence, 2);
  await loops[1].return();
  const last = next(alice, "message", ({ sequence }) => sequence === 22);
  await alice.post(channelId, "after both");
  await last;
  assert.deepEqual(heard, upTo(22));
  assert.equal(alice.toJSON().positions[log][1], 22);
});

test("an ended session ends the client", async (t) => {
  const { alice } = await owner(t);
  const ended = next(alice, "status", ({ state }) => state === "ended");
  const loop = sequences(alice, `user:${alice.userId}`, 99);
  await alice.connect();
  await alice.request("DELETE", `/sessions/devices/${alice.deviceId}`);
  assert.equal((await ended).state, "ended");
  assert.equal(alice.isLoggedIn, false);
  await assert.rejects(loop, (end) => end instanceof ConnectionEnded && end.code === 4005);
});

test("tokens are renewed before they end, once for all who ask", async (t) => {
  await command("short-tokens"); // 12 seconds
  let refreshes = 0;
  const counting = (address, init) => ((refreshes += String(address).endsWith("/sessions/refresh") ? 1 : 0), fetch(address, init));
  const { alice, channelId, log } = await owner(t, { fetch: counting });
  const states = [];
  await alice.connect();
  alice.on("status", ({ state }) => states.push(state));
  const loop = sequences(alice, log, 1);
  await next(alice, "session");
  await Promise.all(upTo(5).map(() => alice.me()));
  await alice.post(channelId, "after a renewal");
  assert.deepEqual(await loop, [1]);
  assert.deepEqual(states, [], "without a break");
  assert.ok(refreshes <= 3, `${refreshes} refreshes`);
  const stored = JSON.parse(JSON.stringify(alice));
  stored.session.access_token = "ended";
  const again = Client.fromJSON(stored);
  t.after(() => again.close());
  assert.equal((await Promise.all([again.me(), again.me(), again.me()]))[2].username, alice.username);
});

test("a login of a client that is connected ends its session, and the next one goes on", async (t) => {
  const { alice, channelId, log } = await owner(t);
  const heard = [];
  alice.on("message", ({ sequence }) => heard.push(sequence));
  await alice.followAll();
  await alice.post(channelId, "before");
  const loop = sequences(alice, log, 99, {});
  if (heard.length < 1) await next(alice, "message");
  await alice.login(alice.username, PASSWORD);
  await assert.rejects(loop, (end) => end instanceof ConnectionEnded && end.code === 4005);
  await alice.followAll();
  await alice.post(channelId, "after");
  if (heard.length < 2) await next(alice, "message");
  assert.deepEqual([heard, alice.status.state, alice.isLoggedIn], [[1, 2], "online", true]);
});

test("a member who leaves and joins again at once hears all that follows", async (t) => {
  const { alice, guildId, channelId, log } = await owner(t);
  const bob = await user(t);
  const { code } = await alice.createInvite(guildId);
  await bob.acceptInvite(code);
  await bob.followAll();
  for (const number of upTo(10)) {
    const again = next(bob, "guild");
    await bob.leaveGuild(guildId);
    await bob.acceptInvite(code);
    const { guild_id: joined } = await again;
    assert.equal(joined, guildId);
    const heard = next(bob, "message", ({ event }) => event.content.content === `${number}`);
    if (!bob.isFollowed(log)) await next(bob, "followed", (told) => told.log === log);
    await alice.post(channelId, `${number}`);
    await heard;
  }
});

test("a guild that was left while nothing ran begins anew when it is joined again", async (t) => {
  const { alice, guildId, channelId, log } = await owner(t);
  const bob = await user(t);
  const { code } = await alice.createInvite(guildId);
  await bob.acceptInvite(code);
  await bob.followAll();
  const one = next(bob, "message");
  await alice.post(channelId, "one");
  await one;
  const stored = JSON.parse(JSON.stringify(bob.toJSON()));
  bob.close();
  const phone = new Client(url);
  t.after(() => phone.close());
  await phone.login(bob.username, PASSWORD);
  await phone.leaveGuild(guildId);
  await alice.post(channelId, "said meanwhile");
  const again = Client.fromJSON(stored);
  t.after(() => again.close());
  const heard = [];
  again.on("message", ({ event }) => heard.push(event.content.content));
  const refused = [log, `guild:${guildId}`].map((gone) => next(again, "refused", (told) => told.log === gone));
  await again.followAll();
  assert.deepEqual((await Promise.all(refused)).map(({ code }) => code), ["not_found", "not_found"]);
  assert.deepEqual(Object.keys(again.toJSON().positions), [`user:${again.userId}`]);
  const joined = next(again, "guild");
  await phone.acceptInvite(code);
  await joined;
  if (!again.isFollowed(log)) await next(again, "followed", (told) => told.log === log);
  const after = next(again, "message", ({ event }) => event.content.content === "after");
  await alice.post(channelId, "after");
  await after;
  assert.deepEqual(heard, ["after"]);
});
