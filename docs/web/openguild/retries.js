/** Commands that the server refused for a while are sent again. */

import { ApiError, isTemporary, OutcomeUnknown } from "./errors.js";
import { Backoff } from "./policy.js";

/** @type {WeakMap<AbortSignal, Set<() => void>>} what waits for the end of each */
const waiting = new WeakMap();

/** @param {Event} event */
function callAll({ target }) {
  const calls = waiting.get(/** @type {AbortSignal} */ (target)) ?? [];
  waiting.delete(/** @type {AbortSignal} */ (target));
  for (const call of calls) call();
}

/**
 * Call when a signal is aborted; return what takes that back. All that waits for a signal shares one listener: Node warns of a leak
 * where one has more than ten.
 * @param {AbortSignal} signal
 * @param {() => void} call
 */
export function whenAborted(signal, call) {
  const calls = waiting.get(signal) ?? new Set();
  waiting.set(signal, calls.add(call));
  signal.addEventListener("abort", callAll, { once: true });
  return () => {
    calls.delete(call);
    if (calls.size === 0) signal.removeEventListener("abort", callAll);
  };
}

/**
 * Wait before another attempt. Rejects at once when the client is closed, so that a program can end.
 * @param {number} ms
 * @param {AbortSignal} closed
 */
export function pause(ms, closed) {
  return new Promise((resolve, reject) => {
    if (closed.aborted) return reject(closed.reason);
    const forget = whenAborted(closed, () => (clearTimeout(timer), reject(closed.reason)));
    const timer = setTimeout(() => (forget(), resolve(undefined)), ms);
  });
}

/**
 * Send a command until it is answered for good, `retryMs` have passed, or the client is closed. Every attempt has the same key.
 * @param {import("./gateway.js").Gateway} gateway
 * @param {import("./commands.js").Command} command
 * @param {number} retryMs
 * @param {() => number} random
 * @param {AbortSignal} closed
 * @returns {Promise<any>}
 */
export async function sendUntilAnswered(gateway, command, retryMs, random, closed) {
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
      await pause(delay, closed).catch((end) => {
        throw isUnknown ? new OutcomeUnknown(String(end), key) : end;
      });
    }
  }
}
