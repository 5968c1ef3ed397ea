// The messages of the open channel, without a browser or server: called by test_page.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import { foldMessages } from "../../docs/web/openguild.js";
import { History } from "../../docs/web/page/history.js";

const message = (sequence) => ({ event_id: `$${sequence}`, sequence, channel_id: "c", author: { id: "a" }, created_at: "2026-01-01T00:00:00Z", content: `text ${sequence}` });
const pageOf = (from, to, head) => ({ epoch: 1, head, messages: Array.from({ length: to - from + 1 }, (_, index) => message(from + index)) });
const event = (sequence, event_type, content) => ({ log: "channel:c", epoch: 1, sequence, event: { event_id: `$${sequence}`, room_id: "c", sender: "a", origin_ts: 0, event_type, content } });
const written = (sequence) => event(sequence, "message", { author: { id: "a" }, content: `text ${sequence}` });

/** Return a history, and a function that answers its requests in order. */
function begin() {
  const answers = [];
  const [positions, subscribed] = [{}, []];
  const client = {
    messages: () => new Promise((resolve, reject) => answers.push({ resolve, reject })),
    toJSON: () => ({ positions }),
    subscribe: (log, beginning) => subscribed.push({ log, ...beginning }),
  };
  const history = new History(client, () => "me", () => {});
  const answer = (page) => answers.shift().resolve(page);
  return { history, positions, subscribed, answer, fail: (failure) => answers.shift().reject(failure) };
}
async function opened(page) {
  const begun = begin();
  const opening = begun.history.open("c");
  begun.answer(page);
  await opening;
  return begun;
}
const sequences = ({ messages }) => [messages[0].sequence, messages.at(-1).sequence];

test("what is being read stays, however much comes", async () => {
  const { history } = await opened(pageOf(1, 50, 50));
  history.isAtEnd = false;
  for (let sequence = 51; sequence <= 1_200; sequence += 1) history.apply(written(sequence));
  assert.deepEqual([...sequences(history), history.isNewest], [1, 1_000, false]);
});

test("at the end the oldest ones are dropped", async () => {
  const { history } = await opened(pageOf(1, 50, 50));
  for (let sequence = 51; sequence <= 1_200; sequence += 1) history.apply(written(sequence));
  const [first, last] = sequences(history);
  assert.deepEqual([last, first > 1, history.isNewest, history.hasOlder], [1_200, true, true, true]);
});

test("a message that is taken back while its page is on its way is not shown", async () => {
  const { history, answer } = await opened(pageOf(51, 100, 100));
  const reading = history.older();
  history.apply(event(101, "message.redacted", { target: "$7" }));
  answer(pageOf(1, 50, 100)); // the state from before
  await reading;
  assert.equal(history.messages[6].content, undefined);
});

test("what cannot be read any more of a channel that was left is no problem", async () => {
  const { history, answer, fail } = begin();
  const former = history.open("c");
  const opening = history.open("d");
  fail(new Error("not_found"));
  assert.deepEqual([await former, history.hasFailed], [false, false]);
  answer(pageOf(51, 100, 100));
  assert.equal(await opening, true);
  const reading = history.older();
  history.close();
  fail(new Error("not_found"));
  await reading;
});

test("older messages that cannot be read now are asked for again", async () => {
  const { history, answer, fail } = await opened(pageOf(51, 100, 100));
  const reading = history.older();
  fail(new Error("guild_offline"));
  await assert.rejects(reading, /guild_offline/);
  assert.deepEqual([...sequences(history), history.hasOlder, history.hasFailed], [51, 100, true, false]);
  const again = history.older();
  answer(pageOf(1, 50, 100));
  await again;
  assert.deepEqual([...sequences(history), history.hasOlder], [1, 100, false]);
});

test("from a message far back the newer ones are read, page by page, with what happens meanwhile", async () => {
  const { history, answer } = begin();
  const opening = history.open("c", 10);
  answer(pageOf(1, 35, 120));
  await opening;
  assert.equal(history.isNewest, false);
  const reading = history.newer();
  await history.newer(); // one at a time
  history.apply(event(121, "message.redacted", { target: "$40" }));
  history.apply(written(122));
  answer(pageOf(36, 85, 120)); // the state from before
  await reading;
  assert.deepEqual([...sequences(history), history.isNewest, history.messages[39].content], [1, 85, false, undefined]);
  const last = history.newer();
  const page = pageOf(86, 120, 122);
  page.messages.push(message(122));
  answer(page);
  await new Promise(setImmediate);
  history.apply(written(123));
  await last;
  assert.deepEqual([...sequences(history), history.isNewest, history.isAtEnd], [1, 123, true, false]);
  history.apply(written(124));
  assert.deepEqual(sequences(history), [1, 124]);
  assert.equal(new Set(history.messages.map(({ event_id: id }) => id)).size, history.messages.length);
});

test("newer messages drop the oldest ones beyond the bound", async () => {
  const { history, answer } = begin();
  const opening = history.open("c", 25);
  answer(pageOf(1, 50, 2_000));
  await opening;
  for (let from = 51; from <= 1_051; from += 50) {
    const reading = history.newer();
    answer(pageOf(from, from + 49, 2_000));
    await reading;
  }
  assert.deepEqual([...sequences(history), history.hasOlder, history.isNewest], [101, 1_100, true, false]);
});

test("a reaction that is in a page is not counted again when it comes", async () => {
  const { history, answer } = await opened(pageOf(51, 100, 100));
  const reading = history.older();
  const page = pageOf(1, 50, 101);
  page.messages[6].reactions = [{ emoji: "x", count: 1, me: false, reactors: ["a"] }];
  answer(page);
  await new Promise(setImmediate);
  history.apply(event(101, "reaction.added", { target: "$7", emoji: "x" }));
  await reading;
  assert.equal(history.messages[6].reactions[0].count, 1);
});

test("of two channels the one that was opened last is shown", async () => {
  const { history, answer } = begin();
  const [first, second] = [history.open("b"), history.open("c")];
  answer(pageOf(1, 1, 1));
  answer(pageOf(2, 3, 3));
  assert.deepEqual([await first, await second, ...sequences(history)], [false, true, 2, 3]);
});

test("a page that cannot be read is told, and can be read again", async () => {
  const { history, answer, fail } = begin();
  const opening = history.open("c");
  fail(new Error("no"));
  await assert.rejects(opening, /no/);
  assert.equal(history.hasFailed, true);
  const again = history.open("c");
  answer(pageOf(1, 1, 1));
  assert.deepEqual([await again, history.hasFailed], [true, false]);
});

test("what came between the page and the beginning of following is asked for", async () => {
  const { history, subscribed } = await opened(pageOf(1, 5, 5));
  assert.equal(history.followed({ epoch: 1, after: 5 }), true);
  assert.deepEqual(subscribed, [], "nothing is missing");
  assert.equal(history.followed({ epoch: 1, after: 8 }), true);
  assert.deepEqual(subscribed, [{ log: "channel:c", epoch: 1, after: 5 }]);
  for (let sequence = 6; sequence <= 9; sequence += 1) assert.equal(history.apply(written(sequence)), true);
  assert.equal(history.apply(written(9)), false, "it is there");
  assert.deepEqual(sequences(history), [1, 9]);
  assert.equal(history.followed({ epoch: 2, after: 9 }), false, "it is to be read anew");
});

test("what came before a page that is older than what is followed is asked for", async () => {
  const { history, positions, subscribed, answer } = begin();
  const opening = history.open("c");
  history.followed({ epoch: 1, after: 7 });
  history.apply(written(8));
  positions["channel:c"] = [1, 8];
  answer(pageOf(1, 5, 5));
  await opening;
  assert.deepEqual(subscribed, [{ log: "channel:c", epoch: 1, after: 5 }]);
  assert.deepEqual(sequences(history), [1, 5], "no gap");
  for (let sequence = 6; sequence <= 8; sequence += 1) history.apply(written(sequence));
  assert.deepEqual(sequences(history), [1, 8]);
});

test("nothing is asked for where all of it came while the page was read", async () => {
  const { history, positions, subscribed, answer } = begin();
  const opening = history.open("c");
  for (let sequence = 5; sequence <= 8; sequence += 1) history.apply(written(sequence));
  positions["channel:c"] = [1, 8];
  answer(pageOf(1, 5, 5));
  await opening;
  assert.deepEqual([subscribed, ...sequences(history)], [[], 1, 8]);
});

test("a change whose content was taken back does nothing, but that an edit is a version", () => {
  const reaction = event(2, "reaction.added", { target: "$1", emoji: "\u{1f331}" });
  const taken = ["reaction.added", "reaction.removed", "reactions.cleared", "message.pinned"];
  const emptied = taken.map((type, place) => event(3 + place, type, { content: "", redacted_by: "$9", target: "$1" }));
  const [before, after] = [foldMessages([message(1)], [reaction]), foldMessages([message(1)], [reaction, ...emptied])];
  assert.equal(before[0].reactions.length, 1);
  assert.deepEqual(after, before);
  const edit = event(3, "message.edited", { content: "", redacted_by: "$9", target: "$1" });
  assert.deepEqual(foldMessages([message(1)], [reaction, edit]), [{ ...before[0], versions: 2 }]);
});
