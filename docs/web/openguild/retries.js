/** Commands that the server refused for a while are sent again. */

import { ApiError, isTemporary, OutcomeUnknown } from "./errors.js";
import { Backoff } from "./policy.js";

/**
 * Send a command until it is answered for good, or `retryMs` have passed. Every attempt has the same key.
 * @param {import("./gateway.js").Gateway} gateway
 * @param {import("./commands.js").Command} command
 * @param {number} retryMs
 * @param {() => number} random
 * @returns {Promise<any>}
 */
export async function sendUntilAnswered(gateway, command, retryMs, random) {
  const { key } = command;
  const backoff = new Backoff(random);
  const deadline = performance.now() + retryMs;
  let isUnknown = false; // an attempt may have been carried out
  for (;;) {
    try {
      return await gateway.send(command, deadline - performance.now());
    } catch (refusal) {
      if (!(refusal instanceof ApiError)) throw isUnknown ? new OutcomeUnknown(String(refusal), key) : refusal;
      isUnknown ||= refusal.mayBeDone;
      const isTokenOver = refusal.status === 401; // a moment before the socket is told so
      if (isTokenOver) void gateway.renew();
      const advisedMs = refusal.retryAfter === undefined ? undefined : refusal.retryAfter * 1_000;
      const delay = backoff.nextDelay({ advisedMs });
      const again = isTemporary(refusal.status) || isTokenOver;
      if (!again || command.type === "typing" || performance.now() + delay > deadline) {
        throw isUnknown ? new OutcomeUnknown(refusal.message, key) : refusal;
      }
      await new Promise((resolve) => setTimeout(resolve, delay));
    }
  }
}
