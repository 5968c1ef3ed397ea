// Outgoing messages that are not shown yet, without a browser or server: called by test_page.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import { forgetUnsent, keptUnsent, Outbox, takeUpUnsent } from "../../docs/web/page/outbox.js";

const draft = (more = {}) => ({ channelId: "c", content: "hello", key: "k", failure: null, sequence: null, ...more });

/** Return an outbox whose open channel shows messages up to `view.head`, and a function that answers its commands. */
function begin() {
  const answers = [];
  const command = () => new Promise((resolve, reject) => answers.push({ resolve, reject }));
  const view = { channelId: "c", head: 6 };
  const outbox = new Outbox({ post: command, edit: command }, (id) => id === view.channelId, (sequence) => sequence <= view.head, () => {});
  const texts = () => outbox.items.map(({ content }) => content);
  return { outbox, view, texts, answer: (posted) => answers.shift().resolve(posted), fail: (failure) => answers.shift().reject(failure) };
}

test("a message stays in view when it is answered before it is heard", async () => {
  const { outbox, view, texts, answer } = begin();
  const sending = outbox.send(draft());
  answer({ sequence: 7 });
  await sending;
  assert.deepEqual(texts(), ["hello"]);
  view.head = 7;
  outbox.settle();
  assert.deepEqual(texts(), []);
});

test("a message that was heard before it is answered is not there twice", async () => {
  const { outbox, view, texts, answer } = begin();
  const sending = outbox.send(draft());
  view.head = 7;
  outbox.settle();
  assert.deepEqual(texts(), ["hello"], "whose event that was is known by the answer only");
  answer({ sequence: 7 });
  await sending;
  assert.deepEqual(texts(), []);
});

test("nothing is kept of a channel that is not open any more", async () => {
  const { outbox, view, texts, answer } = begin();
  const sending = outbox.send(draft());
  view.channelId = "d";
  answer({ sequence: 7 });
  await sending;
  assert.deepEqual(texts(), []);
});

test("an edit is done when it is answered", async () => {
  const { outbox, texts, answer } = begin();
  const sending = outbox.send(draft({ edits: "$1" }));
  answer({ message_id: "$1", sequence: null }); // it had no effect
  await sending;
  assert.deepEqual(texts(), []);
});

test("what failed stays, and is stored when it is sent again", async () => {
  const { outbox, view, texts, answer, fail } = begin();
  const outgoing = draft();
  const sending = outbox.send(outgoing);
  fail(new Error("no way"));
  await sending;
  view.head = 7; // messages of others
  outbox.settle();
  assert.deepEqual(texts(), ["hello"]);
  const again = outbox.send(outgoing);
  answer({ sequence: 8 });
  await again;
  view.head = 8;
  outbox.settle();
  assert.deepEqual(texts(), []);
});

test("what was not sent when the session ended is there in the next one of the user", async () => {
  const { outbox, answer } = begin();
  const sending = outbox.send(draft({ content: "stored" }));
  answer({ sequence: 7 });
  await sending;
  void outbox.send(draft({ content: "on its way" }));
  outbox.items.push(draft({ content: "refused", failure: "no way" }));
  outbox.keep("alice");
  const next = begin();
  next.outbox.takeUp("bob");
  assert.deepEqual(next.texts(), []);
  next.outbox.takeUp("alice");
  const failures = next.outbox.items.map(({ content, failure }) => `${content}: ${failure}`);
  assert.deepEqual(failures, ["on its way: the session had ended", "refused: no way"]);
  const last = begin();
  last.outbox.takeUp("alice");
  assert.deepEqual(last.texts(), [], "once");
  next.outbox.keep("alice");
  forgetUnsent();
  last.outbox.takeUp("alice");
  assert.deepEqual(last.texts(), [], "the user has logged out");
});

test("what was being sent when the page was loaded again is sent under its key, and what was refused waits", async () => {
  forgetUnsent();
  const { outbox } = begin();
  void outbox.send(draft({ content: "on its way" }));
  outbox.items.push(draft({ content: "refused", failure: "no way" }));
  outbox.keep("alice");
  takeUpUnsent(JSON.parse(JSON.stringify(keptUnsent())));
  const sent = [];
  const post = async (channelId, content, { key }) => (sent.push([channelId, content, key]), { sequence: 7 });
  const next = new Outbox({ post }, () => true, () => true, () => {});
  next.takeUp("alice");
  await Promise.resolve();
  assert.deepEqual(sent, [["c", "on its way", "k"]]);
  await new Promise(setImmediate);
  assert.deepEqual(next.items.map(({ content, failure }) => [content, failure]), [["refused", "no way"]]);
});
