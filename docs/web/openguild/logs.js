/** The logs that a client follows, and its place in each, across connections (PROTOCOL 15.9). */

import { OpenGuildError } from "./errors.js";
import { isLogOver, LINE_BYTES, MAX_LOGS, MAX_TAIL, TEMPORARY_CODES } from "./policy.js";

const LOG_NAME = /^(channel|guild|user):[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const MAX_NUMBER = Number.MAX_SAFE_INTEGER;

/** @typedef {import("./types.js").ResumePosition} ResumePosition */

/** A log's state. `wanted`: ask for it on the next connection; `resting`: ask for it after a delay; `asked`: not answered yet.
 * `isAtServer`: the server sends it from an earlier subscription, or will.
 * @typedef {{state: "wanted" | "resting" | "asked" | "followed", place: ResumePosition | null, tail: number | undefined, ref: number,
 *   isAtServer: boolean}} FollowedLog */

export class FollowedLogs {
  /** @type {Map<string, FollowedLog>} */
  #logs = new Map();

  get size() {
    return this.#logs.size;
  }

  /** @param {string} name */
  has(name) {
    return this.#logs.has(name);
  }

  /** @param {string} name */
  isAwaited(name) {
    const state = this.#logs.get(name)?.state;
    return state !== undefined && state !== "followed";
  }

  /** Return the place up to which a log has arrived; null: nothing of it has, or it is not followed. @param {string} name */
  placeOf(name) {
    return this.#logs.get(name)?.place ?? null;
  }

  /** Return the place up to which each log has arrived, without logs that have none.
   * @returns {Map<string, ResumePosition>} */
  places() {
    /** @type {Map<string, ResumePosition>} */
    const places = new Map();
    for (const [name, { place }] of this.#logs) if (place !== null) places.set(name, place);
    return places;
  }

  /**
   * Follow a log after `place`, or with its newest `tail` events. Throws OpenGuildError beyond the bound of a socket, and for
   * invalid values: for one of these the server would refuse the whole `sub`, without naming the log.
   * @param {string} name
   * @param {ResumePosition | null} place
   * @param {number} [tail]
   */
  add(name, place, tail) {
    if (!LOG_NAME.test(name)) throw new OpenGuildError(`${name} names no log: channel:, guild: or user: and an id in lower case`);
    /** @type {[string, number | undefined, number][]} */
    const bounds = [["tail", tail, MAX_TAIL], ["epoch", place?.epoch, MAX_NUMBER], ["after", place?.sequence, MAX_NUMBER]];
    for (const [what, number, most] of bounds) {
      if (number != null && !(Number.isInteger(number) && number >= 0 && number <= most)) throw new OpenGuildError(`${what} must be an integer from 0 to ${most}`);
    }
    if (!this.#logs.has(name) && this.#logs.size >= MAX_LOGS) throw new OpenGuildError(`a socket follows at most ${MAX_LOGS} logs`);
    const isAtServer = this.#isAtServer(name);
    this.#logs.set(name, { state: "wanted", place, tail: place === null ? tail : undefined, ref: 0, isAtServer });
  }

  /**
   * Stop following a log. Return whether an `unsub` must be sent.
   * @param {string} name
   */
  remove(name) {
    const isAtServer = this.#isAtServer(name);
    this.#logs.delete(name);
    return isAtServer;
  }

  /** @param {string} name */
  #isAtServer(name) {
    const log = this.#logs.get(name);
    return log !== undefined && (log.isAtServer || log.state === "asked" || log.state === "followed");
  }

  /** Mark all logs as wanted: the connection, and with it the server's subscriptions, has ended. */
  disconnected() {
    for (const log of this.#logs.values()) Object.assign(log, { state: "wanted", isAtServer: false });
  }

  /** Ask again for the resting logs. */
  wake() {
    for (const log of this.#logs.values()) if (log.state === "resting") log.state = "wanted";
  }

  /**
   * Return `sub` frames for the wanted logs, each of about `frameBytes` at most, and mark these logs as asked for.
   * @param {() => number} nextRef
   * @param {number} frameBytes
   */
  subs(nextRef, frameBytes) {
    const perSub = Math.max(Math.floor(frameBytes / LINE_BYTES), 1);
    const wanted = [...this.#logs].filter(([, log]) => log.state === "wanted");
    const frames = [];
    for (let begin = 0; begin < wanted.length; begin += perSub) {
      const ref = nextRef();
      const logs = wanted.slice(begin, begin + perSub).map(([name, log]) => {
        Object.assign(log, { state: "asked", ref, isAtServer: false });
        if (log.place !== null) {
          const { epoch, sequence: after } = log.place;
          return epoch === 0 ? { log: name, after } : { log: name, epoch, after };
        }
        return log.tail === undefined ? { log: name } : { log: name, tail: log.tail };
      });
      frames.push({ type: "sub", ref, logs });
    }
    return frames;
  }

  /**
   * Return the log that waits for the answer with this ref.
   * @param {number} ref
   * @param {string} name
   */
  #asked(ref, name) {
    const log = this.#logs.get(name);
    return log?.state === "asked" && log.ref === ref ? log : undefined;
  }

  /**
   * Record that a log is followed. Return false if the answer is stale.
   * @param {number} ref
   * @param {{log: string, epoch: number, after: number}} line
   */
  begun(ref, line) {
    const log = this.#asked(ref, line.log);
    if (log === undefined) return false;
    log.state = "followed";
    log.place = { epoch: line.epoch, sequence: line.after };
    return true;
  }

  /**
   * Record that the server refused a log. Return whether it will be asked for again after a delay; undefined if the answer is
   * stale.
   * @param {number} ref
   * @param {string} name
   * @param {string} code
   */
  refused(ref, name, code) {
    const log = this.#asked(ref, name);
    if (log === undefined) return undefined;
    if (TEMPORARY_CODES.has(code)) {
      log.state = "resting";
      return true;
    }
    this.#logs.delete(name);
    return false;
  }

  /**
   * Record that the server has ended a log. Return whether it was followed.
   * @param {string} name
   * @param {string} code
   */
  gone(name, code) {
    const log = this.#logs.get(name);
    if (log?.state !== "followed") return false;
    if (isLogOver(code)) this.#logs.delete(name);
    else log.state = code === "restarted" ? "wanted" : "resting";
    return true;
  }

  /**
   * Compare an event with the place of its log. `next` moves the place; after a `gap` the log is asked for again from its place.
   * @param {{log: string, epoch: number, seq: number}} event
   * @returns {"next" | "repeat" | "gap" | "unwanted"}
   */
  arrived(event) {
    const log = this.#logs.get(event.log);
    if (log === undefined || log.place === null || log.state !== "followed") return "unwanted";
    const { epoch, sequence } = log.place;
    if (event.epoch === epoch && event.seq <= sequence) return "repeat";
    if (event.epoch !== epoch || event.seq !== sequence + 1) {
      log.state = "wanted";
      return "gap";
    }
    log.place = { epoch, sequence: event.seq };
    return "next";
  }
}
