/** Retries of commands that the server refused temporarily. */

import { ApiError, isTemporary, OutcomeUnknown } from "./errors.js";
import { Backoff } from "./policy.js";

/** @type {WeakMap<AbortSignal, Set<() => void>>} the calls to make when each signal is aborted */
const waiting = new WeakMap();

/** @param {Event} event */
function callAll({ target }) {
  const calls = waiting.get(/** @type {AbortSignal} */ (target)) ?? [];
  waiting.delete(/** @type {AbortSignal} */ (target));
  for (const call of calls) call();
}

/**
 * Call a function when a signal is aborted; return a function that cancels this. All calls for a signal share one listener, because
 * Node warns of a leak at more than ten.
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
 * Wait before another attempt. Rejects at once when the signal is aborted, so that a program can end.
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
 * Send a command until it has a final answer, `retryMs` have passed, or `closed` is aborted. All attempts have the same key.
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
      const isTokenOver = refusal.status === 401; // the token has just expired
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
