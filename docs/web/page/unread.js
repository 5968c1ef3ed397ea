/** The counts of unread messages and mentions in each channel (PROTOCOL 7.7). No DOM elements. */

import { Changes } from "./changes.js";

/** @typedef {import("../openguild.js").Client} Client */
/** @typedef {import("../openguild/types.js").LogEvent} LogEvent */

/** `newest`: the sequence of the last unread message, or a later one; `latest`: the last sequence of the log.
 * @typedef {{unread: number, mentions: number, newest: number, latest: number}} Counts */

/** @type {Counts} */
const NOTHING = { unread: 0, mentions: 0, newest: 0, latest: 0 };

export class Unread {
  /** @type {Map<string, Counts>} */
  #counts = new Map();
  #changes = new Changes();
  /** @type {Set<string>} channels whose logs have restarted */
  #renewed = new Set();

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

  /** Return the sum over channels. @param {Iterable<string>} channelIds @returns {Counts} */
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
  count(channelId, told) {
    this.#changes.make(() => this.#count(channelId, told));
  }

  /** @param {string} channelId @param {LogEvent} told */
  #count(channelId, { event, sequence }) {
    const { unread, mentions, newest, latest } = this.of(channelId);
    if (sequence <= latest) return;
    const isCounted = event.event_type === "message" && event.sender !== this.me();
    const { users = [], everyone = false } = event.content["mentions"] ?? {};
    const isMention = isCounted && (everyone || users.includes(this.me()));
    this.#counts.set(channelId, {
      unread: unread + Number(isCounted), mentions: mentions + Number(isMention), newest: isCounted ? sequence : newest, latest: sequence,
    });
    if (isCounted) this.changed();
  }

  /** Record that a channel has been read up to a sequence. @param {string} channelId @param {number} sequence */
  read(channelId, sequence) {
    this.#changes.make(() => this.#read(channelId, sequence));
  }

  /** @param {string} channelId @param {number} sequence */
  #read(channelId, sequence) {
    const counts = this.of(channelId);
    if (counts.unread === 0 || sequence < counts.newest) return;
    this.#counts.set(channelId, { ...counts, unread: 0, mentions: 0 });
    this.changed();
  }

  /** Forget a channel that is gone. @param {string} channelId */
  forget(channelId) {
    this.#counts.delete(channelId);
  }

  /** Ask the server for the counts. */
  async ask() {
    await this.#ask(() => true);
  }

  /**
   * Ask for the counts of a channel whose log has restarted, in one request for channels that restart together.
   * @param {string} channelId
   */
  async askAgain(channelId) {
    this.forget(channelId);
    if (this.#renewed.add(channelId).size > 1) return;
    await Promise.resolve();
    const renewed = this.#renewed;
    this.#renewed = new Set();
    await this.#ask((id) => renewed.has(id)); // not of other channels: their latest read positions may still be unsent
  }

  /** @param {(channelId: string) => boolean} isWanted */
  async #ask(isWanted) {
    await this.#changes.read(() => this.client.unread(), (positions) => {
      for (const { channel_id: id, unread, mentions, latest_sequence: latest } of positions) {
        if (isWanted(id)) this.#counts.set(id, { unread, mentions, newest: latest, latest });
      }
    });
    this.changed();
  }
}
