/** The users who are typing in the open channel. No DOM elements. */

const TYPING_MS = 5_000; // PROTOCOL 7.12.2

export class Typing {
  /** @type {Map<string, {until: number, preview: string | null}>} by user; `until` in `performance.now()` */
  #users = new Map();

  /** @param {() => void} changed */
  constructor(changed) {
    this.changed = changed;
  }

  /** The users, with the previews of their texts. */
  get users() {
    return [...this.#users].map(([id, { preview }]) => ({ id, preview }));
  }

  /** Record a signal; an empty preview means that the user has stopped. @param {string} userId @param {string | null} preview */
  begin(userId, preview) {
    if (preview === "") return this.end(userId);
    this.#users.set(userId, { until: performance.now() + TYPING_MS, preview });
    setTimeout(() => {
      if ((this.#users.get(userId)?.until ?? Infinity) <= performance.now()) this.end(userId);
    }, TYPING_MS + 50);
    this.changed();
  }

  /** @param {string} userId */
  end(userId) {
    if (this.#users.delete(userId)) this.changed();
  }

  /** Forget all users: signals were lost meanwhile, or another channel is open. */
  clear() {
    if (this.#users.size > 0) this.changed();
    this.#users.clear();
  }
}
