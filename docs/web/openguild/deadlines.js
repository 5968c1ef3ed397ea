/** Named deadlines, in milliseconds of one monotonic clock. */

/** @typedef {import("./phases.js").Deadline} Deadline */

export class Deadlines {
  /** @type {Map<Deadline, number>} */
  #times = new Map();

  /** @param {Deadline} name */
  has(name) {
    return this.#times.has(name);
  }

  /** @param {Deadline} name */
  get(name) {
    return this.#times.get(name);
  }

  /** @param {Deadline} name @param {number} time */
  set(name, time) {
    this.#times.set(name, time);
  }

  /** @param {Deadline[]} kept */
  clearAllBut(kept) {
    for (const name of this.#times.keys()) if (!kept.includes(name)) this.#times.delete(name);
  }

  /** Return the earliest time; Infinity if no deadline is set. */
  next() {
    return Math.min(Infinity, ...this.#times.values());
  }

  /** Remove and return the earliest deadline that has passed. @param {number} now */
  takeExpired(now) {
    const [first] = [...this.#times].sort(([, a], [, b]) => a - b);
    if (first === undefined || first[1] > now) return undefined;
    this.#times.delete(first[0]);
    return first[0];
  }
}
