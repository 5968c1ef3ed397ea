/** Sends read positions: the newest of each channel, one at a time, with pauses (PROTOCOL 15.9.6). */

import { ApiError, ConnectionEnded, OpenGuildError, OutcomeUnknown } from "./errors.js";
import { Backoff, MAX_PENDING_COMMANDS, READ_MARK_MS } from "./policy.js";

const KEPT = new Set([429, 503]); // statuses after which a position is sent again; any other refusal drops it

/** A caller that waits for the answer. @typedef {{resolve: (result: any) => void, reject: (failure: unknown) => void}} Waiting */
/** A position in a channel; without `sequence` the newest event.
 * @typedef {{channelId: string, sequence: number | undefined, waiting: Waiting[]}} ReadMark */

/** @param {ReadMark} mark @param {number | undefined} sequence */
const covers = (mark, sequence) => mark.sequence !== undefined && sequence !== undefined && sequence <= mark.sequence;
/** @param {ReadMark} mark @param {number | undefined} sequence */
const raise = (mark, sequence) => {
  if (mark.sequence !== undefined && (sequence === undefined || sequence > mark.sequence)) mark.sequence = sequence;
};

/**
 * The read positions that are not sent yet, without I/O. Call `add`; `take` one at `nextAt` and send it; then call `answered`,
 * `refused` or `unanswered`. Times are milliseconds.
 */
export class ReadMarks {
  /** @type {Map<string, ReadMark>} by channel */
  #marks = new Map();
  /** @type {ReadMark | null} */
  #sent = null;
  #nextAt = -Infinity;
  #backoff;

  /** @param {() => number} random a number in [0, 1) */
  constructor(random) {
    this.#backoff = new Backoff(random);
  }

  /**
   * Add a position; it replaces an older unsent one of the channel. Throws OpenGuildError beyond the bound of channels.
   * @param {string} channelId
   * @param {number} [sequence]
   * @param {Waiting[]} waiting
   */
  add(channelId, sequence, ...waiting) {
    let mark = this.#sent;
    if (mark === null || mark.channelId !== channelId || !covers(mark, sequence)) {
      mark = this.#marks.get(channelId) ?? { channelId, sequence, waiting: [] };
      if (!this.#marks.has(channelId) && this.#marks.size >= MAX_PENDING_COMMANDS) {
        throw new OpenGuildError(`read positions of ${MAX_PENDING_COMMANDS} channels are not sent yet`);
      }
      this.#marks.set(channelId, mark);
      raise(mark, sequence);
    }
    mark.waiting.push(...waiting);
  }

  /**
   * Forget a caller that has stopped waiting; the position is sent all the same.
   * @param {string} channelId
   * @param {Waiting} waiting
   */
  withdraw(channelId, waiting) {
    for (const mark of [this.#sent, this.#marks.get(channelId)]) {
      if (mark != null) mark.waiting = mark.waiting.filter((other) => other !== waiting);
    }
  }

  /** Return when to `take` the next mark; null if none waits, or one is in flight. */
  nextAt() {
    return this.#marks.size > 0 && this.#sent === null ? this.#nextAt : null;
  }

  /** Return the mark to send now, of the channel that has waited longest; null if it is too early. @param {number} now */
  take(now) {
    const due = this.nextAt();
    const [mark] = this.#marks.values();
    if (due === null || now < due || mark === undefined) return null;
    this.#marks.delete(mark.channelId);
    this.#sent = mark;
    this.#nextAt = now + READ_MARK_MS;
    return mark;
  }

  /** Record that the server has the position. Return the callers that wait for the answer. */
  answered() {
    this.#backoff.reset();
    return this.#settled();
  }

  /**
   * Record a refusal. After a temporary one the position is sent again, else it is dropped. Return the callers to reject.
   * @param {number} status
   * @param {number | undefined} advisedMs
   * @param {number} now
   */
  refused(status, advisedMs, now) {
    if (!KEPT.has(status)) return this.#settled();
    this.unanswered(now, advisedMs);
    return [];
  }

  /**
   * Record that no answer will come: the connection was lost. The position is sent again, or a newer one in its place.
   * @param {number} now
   * @param {number} [advisedMs]
   */
  unanswered(now, advisedMs) {
    this.#nextAt = Math.max(this.#nextAt, now + this.#backoff.nextDelay({ advisedMs }));
    const mark = this.#sent;
    this.#sent = null;
    if (mark === null) return;
    const newer = this.#marks.get(mark.channelId);
    if (newer !== undefined) {
      raise(mark, newer.sequence);
      mark.waiting.push(...newer.waiting);
      this.#marks.delete(mark.channelId);
    }
    this.#marks = new Map([[mark.channelId, mark], ...this.#marks]);
  }

  /** Drop all positions. Return the callers that wait. */
  clear() {
    const waiting = [...this.#settled(), ...[...this.#marks.values()].flatMap((mark) => mark.waiting)];
    this.#marks.clear();
    return waiting;
  }

  #settled() {
    const mark = this.#sent;
    this.#sent = null;
    return mark?.waiting ?? [];
  }
}

/**
 * @typedef {object} ReadMarkerParts
 * @property {() => Promise<unknown>} ready resolves when the gateway is open; rejects with ConnectionEnded
 * @property {(command: import("./commands.js").Command) => Promise<any>} attempt sends once; null: connection lost before the answer
 * @property {() => void} renew called when the token has expired
 * @property {import("./gateway.js").Clock} clock
 * @property {() => number} random
 */

/** Sends the marks of a ReadMarks over the gateway. */
export class ReadMarker {
  #parts;
  #marks;
  #isSending = false;
  /** @type {(() => void) | null} ends the pause */
  #wake = null;

  /** @param {ReadMarkerParts} parts */
  constructor(parts) {
    this.#parts = parts;
    this.#marks = new ReadMarks(parts.random);
  }

  /**
   * Send a position, or a newer one of the channel, and return the answer. Rejects with ApiError, ConnectionEnded or
   * OutcomeUnknown.
   * @param {string} channelId
   * @param {number | undefined} sequence
   * @param {number} patienceMs
   * @returns {Promise<any>}
   */
  mark(channelId, sequence, patienceMs) {
    return new Promise((resolve, reject) => {
      let cancel = () => {};
      const waiting = {
        resolve: (/** @type {any} */ result) => (cancel(), resolve(result)),
        reject: (/** @type {unknown} */ failure) => (cancel(), reject(failure)),
      };
      this.#marks.add(channelId, sequence, waiting);
      cancel = this.#parts.clock.after(patienceMs, () => {
        this.#marks.withdraw(channelId, waiting);
        reject(new OutcomeUnknown("no response in time"));
      });
      void this.#sendAll();
    });
  }

  /** Drop all positions: the gateway has ended for good. @param {ConnectionEnded} end */
  end(end) {
    for (const { reject } of this.#marks.clear()) reject(end);
    this.#wake?.();
  }

  async #sendAll() {
    if (this.#isSending) return;
    this.#isSending = true;
    try {
      for (let due = this.#marks.nextAt(); due !== null; due = this.#marks.nextAt()) await this.#sendOne(due);
    } catch (failure) {
      for (const { reject } of this.#marks.clear()) reject(failure);
    } finally {
      this.#isSending = false;
    }
  }

  /** @param {number} ms */
  async #pause(ms) {
    let cancel = () => {};
    await new Promise((resolve) => {
      this.#wake = () => resolve(undefined);
      cancel = this.#parts.clock.after(ms, this.#wake);
    });
    this.#wake = null;
    cancel();
  }

  /** @param {number} due */
  async #sendOne(due) {
    const { attempt, clock, ready, renew } = this.#parts;
    const wait = due - clock.now();
    if (wait > 0) await this.#pause(wait);
    await ready();
    const mark = this.#marks.take(clock.now());
    if (mark === null) return; // dropped meanwhile
    try {
      const result = await attempt({ type: "read", channel_id: mark.channelId, sequence: mark.sequence });
      if (result === null) this.#marks.unanswered(clock.now());
      else for (const { resolve } of this.#marks.answered()) resolve(result);
    } catch (failure) {
      if (failure instanceof ConnectionEnded) throw failure;
      if (failure instanceof ApiError && failure.status !== 401) {
        const advisedMs = failure.retryAfter === undefined ? undefined : failure.retryAfter * 1_000;
        for (const { reject } of this.#marks.refused(failure.status, advisedMs, clock.now())) reject(failure);
        return;
      }
      if (failure instanceof ApiError) renew(); // the token has just expired
      this.#marks.unanswered(clock.now());
    }
  }
}
