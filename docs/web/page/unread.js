/** How many messages of each channel are unread, and mention the reader (PROTOCOL 7.7). No elements. */

/** @typedef {import("../openguild.js").Client} Client */
/** @typedef {import("../openguild/types.js").LogEvent} LogEvent */

/** `latest`: the sequence up to which was counted.
 * @typedef {{unread: number, mentions: number, latest: number}} Counts */

/** @type {Counts} */
const NOTHING = { unread: 0, mentions: 0, latest: 0 };

export class Unread {
  /** @type {Map<string, Counts>} */
  #counts = new Map();
  #isWanted = false;

  /** @param {Client} client @param {() => string} me @param {() => void} changed */
  constructor(client, me, changed) {
    this.client = client;
    this.me = me;
    this.changed = changed;
  }

  /** @param {string} channelId */
  of(channelId) {
    return this.#counts.get(channelId) ?? NOTHING;
  }

  /** The sum over channels. @param {Iterable<string>} channelIds @returns {Counts} */
  sum(channelIds) {
    const sum = { ...NOTHING };
    for (const id of channelIds) {
      const { unread, mentions } = this.of(id);
      sum.unread += unread;
      sum.mentions += mentions;
    }
    return sum;
  }

  /** Count an event of a channel. @param {string} channelId @param {LogEvent} told */
  count(channelId, { event, sequence }) {
    const { unread, mentions, latest } = this.of(channelId);
    if (sequence <= latest) return;
    const isCounted = event.event_type === "message" && event.sender !== this.me();
    const { users = [], everyone = false } = event.content["mentions"] ?? {};
    const isMention = isCounted && (everyone || users.includes(this.me()));
    this.#counts.set(channelId, { unread: unread + Number(isCounted), mentions: mentions + Number(isMention), latest: sequence });
    if (isCounted) this.changed();
  }

  /** A channel has been read up to a place. @param {string} channelId @param {number} sequence */
  read(channelId, sequence) {
    const counts = this.of(channelId);
    if (counts.unread === 0 || sequence < counts.latest) return;
    this.#counts.set(channelId, { ...counts, unread: 0, mentions: 0 });
    this.changed();
  }

  /** A channel is gone, or its log began anew. Return whether anything was known of it. @param {string} channelId */
  forget(channelId) {
    return this.#counts.delete(channelId);
  }

  /** Ask the server for the counts. */
  async ask() {
    this.#isWanted = false;
    for (const { channel_id: id, unread, mentions, latest_sequence: latest } of await this.client.unread()) {
      if (this.of(id).latest <= latest) this.#counts.set(id, { unread, mentions, latest });
    }
    this.changed();
  }

  /** Ask once for the channels that begin anew together. */
  async askSoon() {
    if (this.#isWanted) return;
    this.#isWanted = true;
    await Promise.resolve();
    await this.ask();
  }
}
