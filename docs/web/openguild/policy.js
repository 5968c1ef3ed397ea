/** Delays, bounds, and the meaning of close codes. */

export const BACKOFF_BASE_MS = 250;
export const BACKOFF_MAX_MS = 15_000;
export const HANDSHAKE_MS = 10_000; // for each answer of the server while a connection opens
export const SILENT_HEARTBEATS = 2; // PROTOCOL 15.6.3
export const DATABASE_PATIENCE_MS = 5_000; // PROTOCOL 15.9.3: after which the client leaves a server without a database
export const LOG_RETRY_MS = 2_000; // after a temporary refusal of a log
export const MAX_LOGS = 1_000; // PROTOCOL 15.3.1
export const MAX_TAIL = 200; // PROTOCOL 15.3.2
export const LINE_BYTES = 218; // upper bound for one log in a `sub`: 300 logs fit a frame of 64 KiB
export const MAX_HELD_FRAMES = 64; // unanswered commands that the server queues (PROTOCOL 15.4.4)
export const MAX_PENDING_COMMANDS = 1_000;
export const READ_MARK_MS = 1_000; // between two read positions (PROTOCOL 15.9.6)
export const REFRESH_AHEAD_MS = 60_000; // before the token expires, but at most a tenth of its lifetime

export const SESSION_ENDED = 4005; // PROTOCOL 15.8: log in again

/** Error codes after which a log or a token renewal is asked for again. */
export const TEMPORARY_CODES = new Set(["database_unavailable", "overloaded", "draining", "guild_offline"]);

/**
 * Return whether a `gone` with this code is final: the client does not ask for the log again (PROTOCOL 15.3.7).
 * @param {string} code
 */
export const isLogOver = (code) => code !== "restarted" && code !== "unavailable";

/** The client's action after a close.
 * @typedef {"reconnect" | "token" | "final"} AfterClose */

/** The action for each close code (PROTOCOL 15.8). `token`: reconnect with another token.
 * @type {Record<number, AfterClose>} */
export const GATEWAY_CLOSES = {
  1000: "final", 1001: "reconnect", 1002: "final", 1003: "final", 1007: "final", 1009: "final", 1011: "reconnect",
  1012: "reconnect", 1013: "reconnect", 4000: "final", 4001: "final", 4002: "reconnect", 4003: "token", 4004: "token",
  4005: "final", 4006: "token", 4007: "reconnect", 4008: "reconnect", 4009: "reconnect", 4010: "reconnect",
  4011: "reconnect",
};

/**
 * Return the action after a close code, or after an end without one (null). After an unknown code the client reconnects.
 * @param {number | null} code
 * @returns {AfterClose}
 */
export function afterClose(code) {
  return (code !== null && GATEWAY_CLOSES[code]) || "reconnect";
}

/** Random delays from 0 to `min(maxMs, baseMs * 2**attempt)`, so that many clients do not reconnect at once. */
export class Backoff {
  #attempt = 0;

  /** @param {() => number} random a number in [0, 1) */
  constructor(random, baseMs = BACKOFF_BASE_MS, maxMs = BACKOFF_MAX_MS) {
    this.random = random;
    this.baseMs = baseMs;
    this.maxMs = maxMs;
  }

  /**
   * Return the milliseconds to wait: the random delay, added to the server's advice.
   * @param {{advisedMs?: number | undefined, atOnce?: boolean}} [how] `atOnce`: nothing has failed, so the first delay is 0
   */
  nextDelay({ advisedMs = 0, atOnce = false } = {}) {
    const ceiling = atOnce && this.#attempt === 0 ? 0 : Math.min(this.maxMs, this.baseMs * 2 ** Math.min(this.#attempt, 16));
    this.#attempt += 1;
    return advisedMs + this.random() * ceiling;
  }

  /**
   * Reset after a connection that was open for longer than the longest delay.
   * @param {number} ms
   */
  lasted(ms) {
    if (ms > this.maxMs) this.reset();
  }

  /** Start again with the shortest delay, after a success. */
  reset() {
    this.#attempt = 0;
  }
}
