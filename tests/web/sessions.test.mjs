// What a session's end and a login mean for the gateway, with a server made up here: node --test, called by test_javascript_client.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import { OutcomeUnknown } from "../../docs/web/openguild.js";
import { Gateway } from "../../docs/web/openguild/gateway.js";

const settled = () => new Promise((resolve) => setImmediate(resolve)); // every promise that can go on has gone on
class SilentSocket {
  readyState = 0;
  addEventListener() {}
  close() {}
}

/** A clock that stands still; `timers`: those that run. */
function stoppedClock() {
  const timers = new Set();
  return {
    timers,
    now: () => 0,
    after(ms, call) {
      timers.add(call);
      return () => timers.delete(call);
    },
  };
}

test("nothing waits behind the end of a gateway, so that a program can end", async () => {
  for (const endsFirst of [false, true]) {
    const clock = stoppedClock();
    let fail;
    const freshToken = (refused) => (refused === undefined ? Promise.resolve("t") : new Promise((_, reject) => (fail = reject)));
    const gateway = new Gateway({ url: "ws://test", WebSocket: SilentSocket, freshToken, tell: () => {}, random: () => 0.5, clock });
    gateway.start();
    await settled();
    void gateway.renew();
    if (endsFirst) gateway.close();
    fail(new OutcomeUnknown("no answer"));
    await settled();
    gateway.close();
    assert.equal(clock.timers.size, 0);
  }
});
