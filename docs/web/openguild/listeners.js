/** Listeners by the name of the event. */

import { OpenGuildError } from "./errors.js";
import { isName } from "./told.js";

export class Listeners {
  /** @type {Map<string, Set<(told: any) => void>>} */
  #listeners = new Map();

  /**
   * Add a listener; return a function that removes it. Throws OpenGuildError for an unknown name.
   * @param {string} name
   * @param {(told: any) => void} listener
   */
  add(name, listener) {
    if (!isName(name)) throw new OpenGuildError(`nothing is told under the name ${name}`);
    if (typeof listener !== "function") throw new OpenGuildError(`the listener of ${name} is no function`);
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /** @param {string} name */
  has(name) {
    return (this.#listeners.get(name)?.size ?? 0) > 0;
  }

  /**
   * Call all listeners of a name. One that throws does not stop the others: its error is uncaught.
   * @param {string} name
   * @param {unknown} told
   */
  tell(name, told) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(told);
      } catch (failure) {
        queueMicrotask(() => {
          throw failure;
        });
      }
    }
  }
}
