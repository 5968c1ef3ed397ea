/** The queues between the gateway and the client's `for await` loops, and the place up to which each loop has handled its log. */

import { ApiError, ConnectionEnded, LogGone, STATUS_OF_CODE } from "./errors.js";
import { isLogOver } from "./policy.js";

/** @typedef {import("./types.js").LogEvent} LogEvent */
/** @typedef {import("./types.js").ResumePosition} ResumePosition */
/** @typedef {{epoch: number, after: number, recovered: boolean}} Followed */

const MAX_QUEUED = 1_000; // events per loop; a full queue stops the log's subscription until the loop has emptied it

/** The events of one log that wait for a `for await` loop. */
export class EventQueue {
  /** @type {LogEvent[]} */
  #events = [];
  /** @type {(() => void) | null} */
  #wake = null;
  /** @type {Error | null | undefined} the error that ends the loop; null: it ends without one; undefined: it goes on */
  #end = undefined;
  /** @type {ResumePosition | null} the place of the event that the loop is handling */
  #given = null;
  isPaused = false;

  /**
   * @param {string} log
   * @param {ResumePosition | null} place the last handled event; null: none was handled
   */
  constructor(log, place) {
    this.log = log;
    this.place = place;
    /** The place of the last queued event; events up to it are repeats. */
    this.last = place;
  }

  /** Whether the log cannot be resumed after `place`. */
  get isLost() {
    return this.#end instanceof LogGone;
  }

  /** Add an event, unless it is a repeat. Return whether the queue is full. @param {LogEvent} event */
  push(event) {
    const { epoch, sequence } = event;
    if (this.#end === undefined && !(this.last?.epoch === epoch && sequence <= this.last.sequence)) {
      this.#events.push(event);
      this.last = { epoch, sequence };
      this.#wake?.();
    }
    return this.#events.length >= MAX_QUEUED;
  }

  /** Record from where the log is followed. Return whether events before that place are missing here. @param {Followed} told */
  followed({ epoch, after, recovered }) {
    if (this.#end !== undefined) return false;
    if (this.place === null || this.last === null) this.place = this.last = { epoch, sequence: after };
    else if (!recovered) this.end(new LogGone(this.log, "restarted"));
    else if (this.last.epoch === 0) this.place = this.last = { ...this.last, epoch };
    return recovered && this.last.sequence < after;
  }

  /** Move the place past the event that the loop has finished. */
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
   * Return the next event; undefined at the end. Rejects with the error that ended the log.
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

/** The queues of all loops. A log with a full queue is held: its subscription ends until the loop has emptied the queue. */
export class Loops {
  /** @type {Map<string, Set<EventQueue>>} by log */
  #queues = new Map();
  /** @type {Map<string, ResumePosition>} log -> last event, for held logs */
  #held = new Map();

  /** @param {string} log */
  has(log) {
    return this.#queues.has(log);
  }

  /** Return the place of the last event of a held log; undefined if it is not held. @param {string} log */
  heldAt(log) {
    return this.#held.get(log);
  }

  /** Return the place up to which each log was handled, by the loop that is furthest behind. @returns {Map<string, ResumePosition>} */
  places() {
    /** @type {Map<string, ResumePosition>} */
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

  /** Remove the queue of a loop that was left. Return whether it was the last one of its log. @param {EventQueue} queue */
  remove(queue) {
    this.#queues.get(queue.log)?.delete(queue);
    queue.isPaused = false;
    return this.#queues.get(queue.log)?.size === 0 && this.#queues.delete(queue.log);
  }

  /**
   * Queue an event for the loops. Return whether to stop following the log, because a queue is full now.
   * @param {LogEvent} event
   */
  push(event) {
    const { log, epoch, sequence } = event;
    const wasHeld = this.#held.has(log);
    for (const queue of this.#queues.get(log) ?? []) if (queue.push(event)) queue.isPaused = true;
    if (wasHeld || [...(this.#queues.get(log) ?? [])].some((queue) => queue.isPaused)) this.#held.set(log, { epoch, sequence });
    return !wasHeld && this.#held.has(log);
  }

  /**
   * Return the place from which to follow a held log again; undefined if it is not held, or a queue has not been emptied yet.
   * @param {string} log
   */
  release(log) {
    if ([...(this.#queues.get(log) ?? [])].some((queue) => queue.isPaused)) return undefined;
    const place = this.#held.get(log);
    this.#held.delete(log);
    return place;
  }

  /** Hold a log no longer: it is asked for from another place, or not at all. @param {string} log */
  forget(log) {
    this.#held.delete(log);
  }

  /**
   * Record from where a log is followed. Return the earlier place from which a loop needs it, if any.
   * @param {Followed & {log: string}} told
   */
  followed(told) {
    /** @type {ResumePosition | undefined} */
    let first;
    for (const queue of this.#queues.get(told.log) ?? []) {
      if (queue.followed(told) && queue.last !== null && !isBefore(first, queue.last)) first = queue.last;
    }
    return first;
  }

  /** End the loops over a log, or all loops. @param {Error | null} failure @param {string} [log] */
  end(failure, log) {
    for (const name of log === undefined ? this.#queues.keys() : [log]) for (const queue of this.#queues.get(name) ?? []) queue.end(failure);
  }
}

/** @param {ResumePosition | undefined} place @param {ResumePosition} other */
const isBefore = (place, other) => place !== undefined && place.sequence <= other.sequence;

/**
 * Return the error with which an event of the machine ends a loop; null: it ends without one; undefined: the loop goes on.
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
