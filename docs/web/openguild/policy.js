/** Delays, bounds, and what a close code means. */

export const BACKOFF_BASE_MS = 250;
export const BACKOFF_MAX_MS = 15_000;
export const HANDSHAKE_MS = 10_000; // from each step of a connection to the server's next one
export const SILENT_HEARTBEATS = 2; // PROTOCOL 15.6.3
export const DATABASE_PATIENCE_MS = 5_000; // PROTOCOL 15.9.3: with a server that has no database, while another one may
export const LOG_RETRY_MS = 2_000; // after a log could not be followed for a while
export const MAX_LOGS = 1_000; // PROTOCOL 15.3.1
export const MAX_TAIL = 200; // PROTOCOL 15.3.2
export const LINE_BYTES = 218; // of a log in a `sub`, at most: 300 logs in a frame of 64 KiB
export const MAX_HELD_FRAMES = 64; // commands ahead of their answers (PROTOCOL 15.4.4)
export const MAX_PENDING_COMMANDS = 1_000;
export const READ_MARK_MS = 1_000; // between two read positions (PROTOCOL 15.9.6)
export const REFRESH_AHEAD_MS = 60_000; // before the token ends; a tenth of a shorter life

export const SESSION_ENDED = 4005; // PROTOCOL 15.8: log in again

/** Codes of a log or of a renewal that may be asked for again. */
export const TEMPORARY_CODES = new Set(["database_unavailable", "overloaded", "draining", "guild_offline"]);

/** Whether a `gone` with this code ends a log: it is not followed again by itself (PROTOCOL 15.3.7). @param {string} code */
export const isLogOver = (code) => code !== "restarted" && code !== "unavailable";

/** What a client does after a close.
 * @typedef {"reconnect" | "token" | "final"} AfterClose */

/** PROTOCOL 15.8. `token`: come back with another token.
 * @type {Record<number, AfterClose>} */
export const GATEWAY_CLOSES = {
  1000: "final", 1001: "reconnect", 1002: "final", 1003: "final", 1007: "final", 1009: "final", 1011: "reconnect",
  1012: "reconnect", 1013: "reconnect", 4000: "final", 4001: "final", 4002: "reconnect", 4003: "token", 4004: "token",
  4005: "final", 4006: "token", 4007: "reconnect", 4008: "reconnect", 4009: "reconnect", 4010: "reconnect",
  4011: "reconnect",
};

/**
 * Return what to do after a close code, null for an end without one. An unknown code is no reason to stop.
 * @param {number | null} code
 * @returns {AfterClose}
 */
export function afterClose(code) {
  return (code !== null && GATEWAY_CLOSES[code]) || "reconnect";
}

/** Delays from 0 to `min(maxMs, baseMs * 2**attempt)`, so that many clients do not come back at once. */
export class Backoff {
  #attempt = 0;

  /** @param {() => number} random a number in [0, 1) */
  constructor(random, baseMs = BACKOFF_BASE_MS, maxMs = BACKOFF_MAX_MS) {
    this.random = random;
    this.baseMs = baseMs;
    this.maxMs = maxMs;
  }

  /**
   * Return the milliseconds to wait. Advice of the server is a floor, to which the jitter is added.
   * @param {{advisedMs?: number | undefined, atOnce?: boolean}} [how] `atOnce`: nothing has failed, so the first delay has no jitter
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
