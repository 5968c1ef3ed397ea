/** The messages of the open channel: a stretch of its log, folded, and kept level with what comes. No elements. */

import { foldMessages } from "../openguild.js";

/** @typedef {import("../openguild.js").Client} Client */
/** @typedef {import("../openguild/types.js").Message} Message */
/** @typedef {import("../openguild/types.js").LogEvent} LogEvent */

const PAGE = 50;
const MOST = 1_000; // messages that are kept; others are read again

export class History {
  /** @type {Message[] | null} null: they are being read */
  messages = null;
  isNewest = true; // the list ends with the newest message
  isAtEnd = true; // and its end is in view
  hasOlder = false;
  hasFailed = false; // they could not be read
  #channelId = "";
  #epoch = 0;
  #head = 0; // of the log: up to here `messages` has all
  #opening = 0;
  /** @type {LogEvent[]} that came while a page was being read */
  #meanwhile = [];
  #isReading = false;
  /** @type {{head: number, go: () => void} | null} who waits until the log has come to a place */
  #waiting = null;

  /** @param {Client} client @param {() => string} me @param {() => void} changed */
  constructor(client, me, changed) {
    this.client = client;
    this.me = me;
    this.changed = changed;
  }

  /** Whether everything up to a place in the log has been taken. @param {number} sequence */
  has(sequence) {
    return this.messages !== null && sequence <= this.#head;
  }

  /** Show nothing. */
  close() {
    this.#opening += 1; // what is being read is of no use any more
    this.messages = null;
    this.#meanwhile = [];
    this.hasFailed = this.#isReading = false;
    this.#waiting?.go();
    this.#waiting = null;
  }

  /**
   * Read the newest messages, or those around one. Return false where another channel was opened meanwhile.
   * @param {string} channelId
   * @param {number} [around] a sequence
   */
  async open(channelId, around) {
    this.close();
    this.#channelId = channelId;
    this.isAtEnd = true;
    const opening = this.#opening;
    this.#isReading = true;
    const page = await this.client.messages(channelId, around === undefined ? { limit: PAGE } : { limit: PAGE, around }).catch((failure) => {
      if (opening !== this.#opening) return null; // it is not shown any more, and may be gone
      [this.hasFailed, this.#isReading] = [true, false];
      this.changed();
      throw failure;
    });
    if (page === null || opening !== this.#opening) return false;
    this.#isReading = false;
    [this.#epoch, this.#head] = [page.epoch, page.head];
    this.isNewest = around === undefined || page.messages.filter(({ sequence }) => sequence > around).length < PAGE / 2;
    this.hasOlder = (page.messages[0]?.sequence ?? 1) > 1;
    this.messages = page.messages;
    const meanwhile = this.#meanwhile.splice(0).filter(({ sequence }) => sequence > page.head);
    const [epoch, sequence = 0] = this.client.toJSON().positions[`channel:${channelId}`] ?? [];
    if (epoch === page.epoch && (meanwhile[0]?.sequence ?? sequence + 1) > page.head + 1) this.#followOn();
    else for (const event of meanwhile) this.#fold(event);
    this.changed();
    return true;
  }

  /**
   * The channel is followed behind a place. If events are missing before it, follow it from what is shown instead. Return false
   * where the messages are of another epoch, and are to be read anew.
   * @param {{epoch: number, after: number}} place
   */
  followed({ epoch, after }) {
    if (this.messages === null) return true; // what is being read is compared when it is there
    if (epoch === this.#epoch && after > this.#head) this.#followOn();
    return epoch === this.#epoch;
  }

  #followOn() {
    this.client.subscribe(`channel:${this.#channelId}`, { epoch: this.#epoch, after: this.#head });
  }

  /** Read the messages before the first one. */
  async older() {
    const opening = this.#opening;
    const before = this.messages?.[0]?.sequence;
    if (before === undefined || this.#isReading) return;
    this.#isReading = true;
    try {
      const page = await this.client.messages(this.#channelId, { before, limit: PAGE });
      if (opening === this.#opening && page.head > this.#head) await new Promise((resolve) => (this.#waiting = { head: page.head, go: () => resolve(undefined) }));
      if (opening !== this.#opening || this.messages === null) return;
      const changes = this.#meanwhile.filter(({ sequence, event }) => sequence > page.head && event.event_type !== "message");
      this.hasOlder = (page.messages[0]?.sequence ?? 1) > 1;
      this.messages = [...foldMessages(page.messages, changes, { me: this.me() }), ...this.messages];
      this.#bound();
      this.changed();
    } catch (failure) {
      if (opening === this.#opening) throw failure;
    } finally {
      if (opening === this.#opening) [this.#isReading, this.#meanwhile] = [false, []];
    }
  }

  /** Take an event of the channel. Return whether it is new to what is shown. @param {LogEvent} told */
  apply(told) {
    if (this.has(told.sequence)) return false;
    if (this.#isReading) this.#meanwhile.push(told);
    if (this.messages === null) return false;
    this.#fold(told);
    this.changed();
    if (this.#waiting !== null && this.#head >= this.#waiting.head) {
      this.#waiting.go();
      this.#waiting = null;
    }
    return true;
  }

  /** @param {LogEvent} told */
  #fold(told) {
    if (this.messages === null || told.sequence <= this.#head) return;
    this.#head = told.sequence;
    if (told.event.event_type === "message" && !this.isNewest) return; // there is a gap before it
    this.messages = foldMessages(this.messages, [told], { me: this.me() });
    this.#bound();
  }

  /** Keep what is being read: at the end the newest messages, else those before. */
  #bound() {
    const { messages } = this;
    if (messages === null || messages.length <= MOST) return;
    if (this.isAtEnd && this.isNewest) [this.messages, this.hasOlder] = [messages.slice(-MOST / 2), true];
    else [this.messages, this.isNewest] = [messages.slice(0, MOST), false];
  }
}
