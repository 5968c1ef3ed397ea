/** The logs that a client follows over its gateway, for listeners and loops, and the place up to which each was handled. */

import { endOf, EventQueue, Loops } from "./queues.js";

/** @typedef {import("./types.js").LogEvent} LogEvent */
/** @typedef {import("./types.js").ResumePosition} ResumePosition */
/** @typedef {import("./types.js").Beginning} Beginning */

export class Subscriptions {
  #gateway;
  #kept;
  #start;
  #loops = new Loops();
  /** @type {Set<string>} logs that are followed whether or not a loop reads them */
  #subscribed = new Set();

  /**
   * @param {import("./gateway.js").Gateway} gateway
   * @param {Map<string, ResumePosition>} kept places from storage, of logs that are not followed yet
   * @param {() => void} start opens the gateway
   */
  constructor(gateway, kept, start) {
    this.#gateway = gateway;
    this.#kept = kept;
    this.#start = start;
  }

  /** Return the place up to which each log was handled. @returns {Map<string, ResumePosition>} */
  places() {
    return new Map([...this.#kept, ...this.#gateway.machine.logs.places(), ...this.#loops.places()]);
  }

  /** Return the logs that have a place and are not followed. */
  kept() {
    return [...this.#kept.keys()];
  }

  /** Open the gateway if any log is followed; call it after a login. */
  begin() {
    if (this.#gateway.machine.logs.size > 0) this.#start();
  }

  /** See `Client.subscribe`. @param {string} log @param {Beginning} beginning */
  add(log, beginning) {
    this.#follow(log, beginning);
    this.#subscribed.add(log);
  }

  /** Return the place of the last event that listeners got; null: none, or the log is not followed. @param {string} log */
  placeOf(log) {
    return this.#gateway.machine.logs.placeOf(log);
  }

  /** @param {string} log */
  has(log) {
    return this.#gateway.machine.logs.has(log);
  }

  /** @param {string} log */
  isAwaited(log) {
    return this.#gateway.machine.logs.isAwaited(log);
  }

  /** @param {string} log */
  remove(log) {
    this.#subscribed.delete(log);
    if (!this.#loops.has(log)) this.#gateway.unfollow(log);
  }

  /** Handle an event of the gateway, before the listeners do. @param {import("./phases.js").MachineEvent} told */
  hear(told) {
    const end = endOf(told);
    if (end !== undefined && "log" in told) {
      this.#loops.end(end, told.log);
      this.#subscribed.delete(told.log);
    } else if (end !== undefined) this.#loops.end(end);
    if (told.type === "event") {
      const { log, epoch, sequence, event } = told;
      if (this.#loops.push({ log, epoch, sequence, event })) this.#gateway.unfollow(log);
    } else if (told.type === "followed") {
      const place = this.#loops.followed(told);
      if (place !== undefined) this.#gateway.follow(told.log, place);
    }
  }

  /** @param {string} log @param {Beginning} beginning */
  #follow(log, beginning) {
    const place = this.#placeOf(log, beginning);
    const goesOn = this.has(log) || this.#loops.heldAt(log) !== undefined;
    if (!goesOn || place !== null || beginning.tail !== undefined) {
      this.#loops.forget(log);
      this.#gateway.follow(log, place, beginning.tail);
    }
    this.#kept.delete(log);
    this.#start();
  }

  /** @param {string} log @param {Beginning} beginning @returns {ResumePosition | null} */
  #placeOf(log, { epoch, after }) {
    if (after !== undefined) return { epoch: epoch ?? 0, sequence: after };
    return this.#kept.get(log) ?? null;
  }

  /** Return the place of the log now, at which a loop without a beginning begins. @param {string} log */
  #currentPlace(log) {
    return this.#loops.heldAt(log) ?? this.placeOf(log);
  }

  /**
   * See `Client.events`.
   * @param {string} log
   * @param {Beginning} beginning
   * @returns {AsyncGenerator<LogEvent, void, void>}
   */
  async *events(log, beginning) {
    const place = this.#placeOf(log, beginning) ?? (beginning.tail === undefined ? this.#currentPlace(log) : undefined);
    const queue = new EventQueue(log, place ?? null);
    this.#follow(log, beginning);
    this.#loops.add(queue);
    const { end } = this.#gateway;
    if (end !== null) queue.end(end.code === null ? null : end);
    const goOn = () => {
      const place = this.#loops.release(log);
      if (place !== undefined) this.#gateway.follow(log, place);
    };
    try {
      for (let event = await queue.next(goOn); event !== undefined; event = await queue.next(goOn)) yield event;
    } finally {
      queue.handled();
      if (!this.#loops.remove(queue) || this.#subscribed.has(log)) goOn();
      else {
        this.#loops.forget(log);
        this.#gateway.unfollow(log);
        if (queue.place !== null && !queue.isLost) this.#kept.set(log, queue.place);
      }
    }
  }
}
