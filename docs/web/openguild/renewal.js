/** The `auth` that renews the token of an open connection: one at a time (PROTOCOL 15.2.4). */

const NONE = 0;
const RESTING = -1; // it is sent again after a while

export class Renewal {
  /** Of an `auth` that is not answered. */
  #ref = NONE;
  /** Whether another token has come meanwhile. */
  #isOutdated = false;

  /** There is another token. Return the ref of the `auth` to send; 0: it is sent when the one before is answered. @param {() => number} nextRef */
  begin(nextRef) {
    if (this.#ref > NONE) {
      this.#isOutdated = true;
      return NONE;
    }
    this.#ref = nextRef();
    return this.#ref;
  }

  /** @param {number} ref */
  isAnsweredBy(ref) {
    return ref > NONE && ref === this.#ref;
  }

  /** It is over. Return whether another one is to begin. */
  end() {
    const isOutdated = this.#isOutdated;
    this.#ref = NONE;
    this.#isOutdated = false;
    return isOutdated;
  }

  /** The server cannot check the token now. */
  rest() {
    this.#ref = RESTING;
  }

  get isResting() {
    return this.#ref === RESTING;
  }
}
