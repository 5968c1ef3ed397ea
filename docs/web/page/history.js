/** The messages of the open channel: a part of its log, folded and kept current. No DOM elements. */

import { foldMessages } from "../openguild.js";

/** @typedef {import("../openguild.js").Client} Client */
/** @typedef {import("../openguild/types.js").Message} Message */
/** @typedef {import("../openguild/types.js").LogEvent} LogEvent */

const PAGE = 50;
const MOST = 1_000; // messages that are kept; older ones are read again on demand

export class History {
  /** @type {Message[] | null} null: they are being read */
  messages = null;
  isNewest = true; // the list ends with the newest message
  isAtEnd = true; // the end of the list is in view
  hasOlder = false;
  hasFailed = false; // the messages could not be read
  #channelId = "";
  #epoch = 0;
  #head = 0; // the sequence up to which `messages` is complete
  #opening = 0;
  /** @type {LogEvent[]} events that arrived while a page was being read */
  #meanwhile = [];
  #isReading = false;
  /** @type {{head: number, go: () => void} | null} a call to make when the log has reached a sequence */
  #waiting = null;

  /** @param {Client} client @param {() => string} me @param {() => void} changed */
  constructor(client, me, changed) {
    this.client = client;
    this.me = me;
    this.changed = changed;
  }

  /** Return whether all events up to a sequence have been applied. @param {number} sequence */
  has(sequence) {
    return this.messages !== null && sequence <= this.#head;
  }

  /** Discard the messages; none are shown until `open`. */
  close() {
    this.#opening += 1; // pending answers are ignored
    this.messages = null;
    this.#meanwhile = [];
    this.hasFailed = this.#isReading = false;
    this.#waiting?.go();
    this.#waiting = null;
  }

  /**
   * Read the newest messages, or those around one. Return false if another channel was opened meanwhile.
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
      if (opening !== this.#opening) return null; // another channel is open
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
   * Record from where the channel is followed. If events before that place are missing, follow it after the shown ones instead.
   * Return false if the messages are of another epoch and must be read again.
   * @param {{epoch: number, after: number}} place
   */
  followed({ epoch, after }) {
    if (this.messages === null) return true; // `open` compares the places when it has the page
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
      await this.#reached(page.head, opening);
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

  /** Read the messages after the last one, if the list does not end with the newest. */
  async newer() {
    const opening = this.#opening;
    const after = this.messages?.at(-1)?.sequence;
    if (after === undefined || this.isNewest || this.#isReading) return;
    this.#isReading = true;
    try {
      const page = await this.client.messages(this.#channelId, { after, limit: PAGE });
      await this.#reached(page.head, opening);
      if (opening !== this.#opening || this.messages === null) return;
      this.isNewest = page.messages.length < PAGE;
      const later = this.#meanwhile.filter(({ sequence, event }) => sequence > page.head && (this.isNewest || event.event_type !== "message"));
      const messages = [...this.messages, ...foldMessages(page.messages, later, { me: this.me() })];
      this.hasOlder ||= messages.length > MOST;
      this.messages = messages.slice(-MOST);
      this.isAtEnd = false; // the user reads on from the message that was the last
      this.changed();
    } catch (failure) {
      if (opening === this.#opening) throw failure;
    } finally {
      if (opening === this.#opening) [this.#isReading, this.#meanwhile] = [false, []];
    }
  }

  /** Wait until all events up to a page's head have been applied, or another channel is opened. @param {number} head @param {number} opening */
  async #reached(head, opening) {
    if (opening === this.#opening && head > this.#head) await new Promise((resolve) => (this.#waiting = { head, go: () => resolve(undefined) }));
  }

  /** Apply an event of the channel. Return whether it was new. @param {LogEvent} told */
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

  /** Drop messages beyond MOST: the oldest if the user is at the end, else the newest. */
  #bound() {
    const { messages } = this;
    if (messages === null || messages.length <= MOST) return;
    if (this.isAtEnd && this.isNewest) [this.messages, this.hasOlder] = [messages.slice(-MOST / 2), true];
    else [this.messages, this.isNewest] = [messages.slice(0, MOST), false];
  }
}
