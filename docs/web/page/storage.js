/** The browser's storage, which the user may have forbidden, and which may be full. */

export class Kept {
  /** @type {Map<string, string>} what was written since the page was loaded, for values that the browser does not store */
  #written = new Map();

  /** @param {() => Storage} storage throws DOMException if storage is forbidden */
  constructor(storage) {
    this.storage = storage;
  }

  /** @param {string} name */
  get(name) {
    return this.#written.get(name) ?? this.#try((storage) => storage.getItem(name)) ?? null;
  }

  /** Store a value; one that the browser does not store lasts until the page is left. @param {string} name @param {string} value */
  set(name, value) {
    if (this.#written.get(name) === value) return;
    this.#written.set(name, value);
    this.#try((storage) => {
      storage.removeItem(name); // a stale value must not stay if the new one does not fit
      storage.setItem(name, value);
    });
  }

  /** @param {string} name */
  remove(name) {
    this.#written.delete(name);
    this.#try((storage) => storage.removeItem(name));
  }

  /**
   * @template T
   * @param {(storage: Storage) => T} act
   */
  #try(act) {
    try {
      return act(this.storage());
    } catch (failure) {
      if (!(failure instanceof DOMException)) throw failure;
      console.warn("the browser does not store this:", failure.message);
      return undefined;
    }
  }
}

/** Per tab. */
export const ofTab = new Kept(() => sessionStorage);
/** Per browser. */
export const ofBrowser = new Kept(() => localStorage);
