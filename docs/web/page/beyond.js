/** The channels that the client does not follow, because a socket follows a limited number of logs (PROTOCOL 15.3.1). */

/** @param {string} channelId */
const logOf = (channelId) => `channel:${channelId}`;

export class Beyond {
  /** @type {Set<string>} logs */
  #logs = new Set();

  /** @param {import("../openguild.js").Client} client */
  constructor(client) {
    this.client = client;
  }

  /** @param {string} log */
  add(log) {
    this.#logs.add(log);
  }

  /** @param {string} log */
  delete(log) {
    this.#logs.delete(log);
  }

  /** @param {string} channelId */
  has(channelId) {
    return this.#logs.has(logOf(channelId));
  }

  /** Follow a channel that is opened, in place of one of the others. @param {string} channelId @param {string[]} others */
  follow(channelId, others) {
    if (!this.#logs.delete(logOf(channelId))) return;
    const other = others.find((id) => id !== channelId && !this.has(id));
    if (other !== undefined) {
      this.client.unsubscribe(logOf(other));
      this.add(logOf(other));
    }
    this.client.subscribe(logOf(channelId));
  }
}
