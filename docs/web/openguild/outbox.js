/** The messages that wait to be sent over the open connection. */

export class Outbox {
  /** At most, of one message, as the server says. */
  frameBytes = 0;
  /** @type {string[]} */
  #messages = [];

  /** Queue a frame. False: it is larger than the server takes, and is not sent. @param {object} frame */
  add(frame) {
    const text = JSON.stringify(frame);
    const fits = new TextEncoder().encode(text).length <= this.frameBytes;
    if (fits) this.#messages.push(text);
    return fits;
  }

  /** Remove and return all messages. */
  take() {
    return this.#messages.splice(0);
  }
}
