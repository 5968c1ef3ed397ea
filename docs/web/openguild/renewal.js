/** The `auth` frame that renews the token of an open connection, one at a time (PROTOCOL 15.2.4). */

const NONE = 0;
const RESTING = -1; // sent again after a delay

export class Renewal {
  /** The ref of the unanswered `auth`, NONE or RESTING. */
  #ref = NONE;
  /** Whether the token has changed since that `auth`. */
  #isOutdated = false;

  /**
   * Return the ref of the `auth` to send for a new token; 0 while an earlier one is unanswered: `end` says when to call again.
   * @param {() => number} nextRef
   */
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

  /** End the renewal. Return whether another one must begin, because the token has changed. */
  end() {
    const isOutdated = this.#isOutdated;
    this.#ref = NONE;
    this.#isOutdated = false;
    return isOutdated;
  }

  /** Record that the server cannot check the token now. */
  rest() {
    this.#ref = RESTING;
  }

  get isResting() {
    return this.#ref === RESTING;
  }
}
