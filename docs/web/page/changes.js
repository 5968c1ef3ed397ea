/**
 * Applies changes to a state that is also read as a whole. An answer may be older than changes that arrived while it was requested,
 * so these are applied to it again: each must carry the complete state of its subject (PROTOCOL 7.9.5), or detect that it was
 * applied.
 */
export class Changes {
  /** @type {Set<(() => void)[]>} for each pending request, the changes since it began */
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
