/** Subscriptions of a client: who holds which log, and how far each log was handled. */

import { ApiError, ConnectionEnded, LogGone, STATUS_OF_CODE } from "./errors.js";
import { isLogOver } from "./policy.js";

/** @typedef {import("./types.js").LogEvent} LogEvent */
/** @typedef {import("./types.js").Place} Place */
/** @typedef {{epoch: number, after: number, recovered: boolean}} Followed */

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

  /**
   * @param {string} log
   * @param {Place | null} place up to which events were handled; null: none was
   */
  constructor(log, place) {
    this.log = log;
    this.place = place;
    /** Of the last event that came: what does not stand behind it came before. */
    this.last = place;
  }

  /** Whether the log cannot be followed behind `place` again. */
  get isLost() {
    return this.#end instanceof LogGone;
  }

  /** Add an event, unless it came before. Return whether the queue is full. @param {LogEvent} event */
  push(event) {
    const { epoch, sequence } = event;
    if (this.#end === undefined && !(this.last?.epoch === epoch && sequence <= this.last.sequence)) {
      this.#events.push(event);
      this.last = { epoch, sequence };
      this.#wake?.();
    }
    return this.#events.length >= MAX_QUEUED;
  }

  /** The log is followed from a place. Return whether events are missing before it. @param {Followed} told */
  followed({ epoch, after, recovered }) {
    if (this.#end !== undefined) return false;
    if (this.place === null || this.last === null) this.place = this.last = { epoch, sequence: after };
    else if (!recovered) this.end(new LogGone(this.log, "restarted"));
    else if (this.last.epoch === 0) this.place = this.last = { ...this.last, epoch };
    return recovered && this.last.sequence < after;
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
      this.isPaused = false;
      onEmpty();
      await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
      this.#wake = null;
    }
  }
}

/** All loops over logs. A log of which one is full is held: it is not followed until that one has taken what waits. */
export class Loops {
  /** @type {Map<string, Set<EventQueue>>} by log */
  #queues = new Map();
  /** @type {Map<string, Place>} log -> its last event, of logs that are held */
  #held = new Map();

  /** @param {string} log */
  has(log) {
    return this.#queues.has(log);
  }

  /** Return the last event of a log that is held. @param {string} log */
  heldAt(log) {
    return this.#held.get(log);
  }

  /** How far each log was handled: by the loop that is furthest behind. @returns {Map<string, Place>} */
  places() {
    /** @type {Map<string, Place>} */
    const places = new Map();
    for (const [log, queues] of this.#queues) {
      for (const { place, isLost } of queues) if (place !== null && !isLost && !isBefore(places.get(log), place)) places.set(log, place);
    }
    return places;
  }

  /** @param {EventQueue} queue */
  add(queue) {
    const queues = this.#queues.get(queue.log) ?? new Set();
    this.#queues.set(queue.log, queues.add(queue));
  }

  /** A loop was left. Return whether it was the last one over its log. @param {EventQueue} queue */
  remove(queue) {
    this.#queues.get(queue.log)?.delete(queue);
    queue.isPaused = false;
    return this.#queues.get(queue.log)?.size === 0 && this.#queues.delete(queue.log);
  }

  /** Give an event to the loops. Return whether the log is to be followed no longer. @param {LogEvent} event */
  push(event) {
    const { log, epoch, sequence } = event;
    const wasHeld = this.#held.has(log);
    for (const queue of this.#queues.get(log) ?? []) if (queue.push(event)) queue.isPaused = true;
    if (wasHeld || [...(this.#queues.get(log) ?? [])].some((queue) => queue.isPaused)) this.#held.set(log, { epoch, sequence });
    return !wasHeld && this.#held.has(log);
  }

  /** Return from where to follow a held log again; undefined: it is not held, or a loop is still full. @param {string} log */
  release(log) {
    if ([...(this.#queues.get(log) ?? [])].some((queue) => queue.isPaused)) return undefined;
    const place = this.#held.get(log);
    this.#held.delete(log);
    return place;
  }

  /** The log is asked for from another place, or not at all. @param {string} log */
  forget(log) {
    this.#held.delete(log);
  }

  /** A log is followed. Return from where a loop needs it, where that is before. @param {Followed & {log: string}} told */
  followed(told) {
    /** @type {Place | undefined} */
    let first;
    for (const queue of this.#queues.get(told.log) ?? []) {
      if (queue.followed(told) && queue.last !== null && !isBefore(first, queue.last)) first = queue.last;
    }
    return first;
  }

  /** End the loops over a log, or all. @param {Error | null} failure @param {string} [log] */
  end(failure, log) {
    for (const name of log === undefined ? this.#queues.keys() : [log]) for (const queue of this.#queues.get(name) ?? []) queue.end(failure);
  }
}

/** @param {Place | undefined} place @param {Place} other */
const isBefore = (place, other) => place !== undefined && place.sequence <= other.sequence;

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
      return isLogOver(told.code) ? new LogGone(told.log, told.code) : undefined;
    case "ended":
      return told.code === null ? null : new ConnectionEnded(told.code, told.reason);
    default:
      return undefined;
  }
}
