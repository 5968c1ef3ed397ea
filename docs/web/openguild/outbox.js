/** The messages to send over the open connection. */

export class Outbox {
  /** The largest message that the server accepts, in bytes. */
  frameBytes = 0;
  /** @type {string[]} */
  #messages = [];

  /** Queue a frame. Return false if it is larger than the server accepts; then it is not sent. @param {object} frame */
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
