// The counts of unread messages, without a browser or server: called by test_page.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Unread } from "../../docs/web/page/unread.js";

function begin() {
  const unread = new Unread({ unread: async () => [] }, () => "me", () => {});
  const count = (sequence, event_type, sender = "bob") => {
    unread.count("c", { sequence, event: { event_type, sender, content: {} } });
  };
  return { unread, count };
}

test("what another device has read is read, whatever came after the message", () => {
  const { unread, count } = begin();
  count(7, "message");
  count(8, "reaction.added");
  count(9, "message", "me");
  unread.read("c", 7);
  assert.equal(unread.of("c").unread, 0);
});

test("a message after the read position stays unread", () => {
  const { unread, count } = begin();
  count(7, "message");
  count(8, "message");
  unread.read("c", 7);
  assert.notEqual(unread.of("c").unread, 0);
});
