/** Subscriptions of a client: who holds which log, and how far each log was handled. */

import { ApiError, ConnectionEnded, LogGone, STATUS_OF_CODE } from "./errors.js";

/** @typedef {import("./types.js").LogEvent} LogEvent */
/** @typedef {import("./types.js").Place} Place */

const MAX_QUEUED = 1_000; // events that wait for a loop; beyond it the log is not followed until the loop has taken them

/** Events of one log on their way to a `for await` loop. */
export class EventQueue {
  /** @type {LogEvent[]} */
  #events = [];
  /** @type {(() => void) | null} */
  #wake = null;
  /** @type {Error | null | undefined} null: the end, without an error */
  #end = undefined;
  /** @type {Place | null} of the event that the loop is at */
  #given = null;
  isPaused = false;
  /** @type {Place | null} of the last event that came */
  last = null;

  /**
   * @param {string} log
   * @param {Place | null} place up to which events were handled; null: none was
   */
  constructor(log, place) {
    this.log = log;
    this.place = place;
    this.isFollowed = false;
  }

  /** Add an event. Return whether the queue is full. @param {LogEvent} event */
  push(event) {
    this.#events.push(event);
    this.last = { epoch: event.epoch, sequence: event.sequence };
    this.#wake?.();
    return this.#events.length >= MAX_QUEUED;
  }

  /** The log is followed from a place. @param {{epoch: number, after: number, recovered: boolean}} line */
  followed({ epoch, after, recovered }) {
    if (!recovered && this.place !== null) this.end(new LogGone(this.log, "restarted"));
    else if (this.place === null || !this.isFollowed) this.place = { epoch, sequence: after };
    this.isFollowed = true;
  }

  /** The loop is done with its event: only now it moves the place. */
  handled() {
    this.place = this.#given ?? this.place;
    this.#given = null;
  }

  /** @param {Error | null} failure */
  end(failure) {
    if (this.#end === undefined) this.#end = failure;
    this.#wake?.();
  }

  /**
   * Return the next event; undefined at the end. Rejects with what ended the log.
   * @param {() => void} onEmpty called when all events have been taken
   */
  async next(onEmpty) {
    this.handled();
    for (;;) {
      const event = this.#events.shift();
      if (event !== undefined) {
        this.#given = { epoch: event.epoch, sequence: event.sequence };
        return event;
      }
      if (this.#end === null) return undefined;
      if (this.#end !== undefined) throw this.#end;
      onEmpty();
      await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
      this.#wake = null;
    }
  }
}

/**
 * Return the error that ends a loop over a log, for what the machine has told; undefined: it goes on.
 * @param {import("./phases.js").MachineEvent} told
 * @returns {Error | null | undefined}
 */
export function endOf(told) {
  switch (told.type) {
    case "refused":
      return new ApiError(STATUS_OF_CODE[told.code] ?? 400, told.code, told.message);
    case "gone":
      return told.code === "access_lost" || told.code === "deleted" ? new LogGone(told.log, told.code) : undefined;
    case "ended":
      return told.code === null ? null : new ConnectionEnded(told.code, told.reason);
    default:
      return undefined;
  }
}
