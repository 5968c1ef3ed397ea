/**
 * Changes of something that is also read as a whole. An answer may be older than changes that came while it was on its way, so they
 * are made once more behind it: each must have the complete state of its subject (PROTOCOL 7.9.5), or know whether it was made.
 */
export class Changes {
  /** @type {Set<(() => void)[]>} of each answer that is on its way the changes that came meanwhile */
  #meanwhile = new Set();

  /** @param {() => void} change */
  make(change) {
    for (const changes of this.#meanwhile) changes.push(change);
    change();
  }

  /**
   * @template T
   * @param {() => Promise<T>} read
   * @param {(answer: T) => void} take
   */
  async read(read, take) {
    /** @type {(() => void)[]} */
    const meanwhile = [];
    this.#meanwhile.add(meanwhile);
    try {
      take(await read());
    } finally {
      this.#meanwhile.delete(meanwhile);
    }
    for (const change of meanwhile) change();
  }
}
