/** What was written and is not in view yet. What cannot be stored stays, until it is sent again or discarded. */

import { failureText } from "./dom.js";

/** @typedef {import("../openguild.js").Client} Client */

/**
 * `content` as it is stored; `edits`: the message whose text it is to be; `failure`: why it was not stored, null while it is being sent;
 * `sequence`: where it is stored, null until that is known.
 * @typedef {{channelId: string, content: string, replyTo: string | undefined, edits: string | undefined, key: string, failure: string | null, sequence: number | null}} Outgoing
 */

const RELOADED = "the page was loaded again"; // while it was being sent

/** @type {Map<string, Outgoing[]>} by user; they outlast a session that ends */
const unsent = new Map();

/** The user has logged out. */
export function forgetUnsent() {
  unsent.clear();
}

/** What a tab that is loaded again needs of it, by user. @returns {[string, Outgoing[]][]} */
export function keptUnsent() {
  return [...unsent].map(([userId, items]) => [userId, items.map((outgoing) => ({ ...outgoing, failure: outgoing.failure ?? RELOADED }))]);
}

/** @param {[string, Outgoing[]][]} kept */
export function takeUpUnsent(kept) {
  for (const [userId, items] of kept) unsent.set(userId, items);
}

export class Outbox {
  /** @type {Outgoing[]} */
  items = [];

  /**
   * @param {Client} client
   * @param {(channelId: string) => boolean} isOpen
   * @param {(sequence: number) => boolean} isShown whether the messages of the open channel have what is stored there
   * @param {() => void} changed
   */
  constructor(client, isOpen, isShown, changed) {
    this.client = client;
    this.isOpen = isOpen;
    this.isShown = isShown;
    this.changed = changed;
  }

  /** Send; again with the same key, so that it is stored once. Rejects where its failure is not in view. @param {Outgoing} outgoing */
  async send(outgoing) {
    const { channelId, content, replyTo, edits, key } = outgoing;
    outgoing.failure = null;
    if (!this.items.includes(outgoing)) this.items.push(outgoing);
    this.changed();
    try {
      if (edits === undefined) outgoing.sequence = (await this.client.post(channelId, content, { replyTo, key })).sequence;
      else await this.client.edit(channelId, edits, content, { key });
    } catch (failure) {
      outgoing.failure = failureText(failure);
      this.changed();
      if (!this.isOpen(channelId)) throw failure;
      return;
    }
    if (outgoing.sequence === null) this.discard(outgoing);
    else this.settle();
  }

  /** The session has ended, or the page is left: keep what is not stored for the next one. @param {string} userId */
  keep(userId) {
    unsent.set(userId, this.items.filter(({ sequence }) => sequence === null));
  }

  /** Take what the last session of a user has left, and go on with what was being sent when the page was loaded again. @param {string} userId */
  takeUp(userId) {
    const left = (unsent.get(userId) ?? []).map((outgoing) => ({ ...outgoing, failure: outgoing.failure ?? "the session had ended" }));
    unsent.delete(userId);
    this.items.unshift(...left);
    this.changed();
    for (const outgoing of left) if (outgoing.failure === RELOADED) this.send(outgoing).catch(() => {}); // it is shown with its channel
  }

  /** Let go of the messages that are stored and in view: the answer may be there before the event. */
  settle() {
    this.items = this.items.filter(({ channelId, sequence }) => sequence === null || (this.isOpen(channelId) && !this.isShown(sequence)));
    this.changed();
  }

  /** The log of a channel began anew: what was stored in it before may not be there any more. @param {string} channelId */
  restarted(channelId) {
    this.items = this.items.filter((outgoing) => outgoing.channelId !== channelId || outgoing.sequence === null);
    this.changed();
  }

  /** @param {Outgoing} outgoing */
  discard(outgoing) {
    this.items = this.items.filter((other) => other !== outgoing);
    this.changed();
  }
}
