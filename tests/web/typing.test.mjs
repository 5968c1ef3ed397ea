// The users who are typing, without a browser: called by test_page.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Typing } from "../../docs/web/page/typing.js";

/** Return a Typing, and a function that lets time pass; `clock.wall` is the wall clock's error in milliseconds. */
function begin(t) {
  const clock = { now: 1_000, wall: 0 };
  t.mock.timers.enable({ apis: ["setTimeout"] });
  t.mock.method(performance, "now", () => clock.now);
  t.mock.method(Date, "now", () => clock.now + clock.wall);
  const typing = new Typing(() => {});
  const ids = () => typing.users.map(({ id }) => id);
  const pass = (ms) => ((clock.now += ms), t.mock.timers.tick(ms));
  return { clock, typing, ids, pass };
}

test("a user who stops typing disappears, even if the clock is set back", (t) => {
  const { clock, typing, ids, pass } = begin(t);
  typing.begin("bob", null);
  clock.wall = -3_600_000;
  pass(4_000);
  assert.deepEqual(ids(), ["bob"]);
  pass(1_100);
  assert.deepEqual(ids(), []);
});

test("each signal prolongs the typing, and an empty preview ends it", (t) => {
  const { typing, ids, pass } = begin(t);
  typing.begin("bob", null);
  pass(4_000);
  typing.begin("bob", "hel");
  pass(4_000);
  assert.deepEqual(typing.users, [{ id: "bob", preview: "hel" }]);
  typing.begin("bob", "");
  assert.deepEqual(ids(), []);
});
