/** Outgoing messages that the timeline does not show yet. A failed one stays until it is sent again or discarded. */

import { failureText } from "./dom.js";

/** @typedef {import("../openguild.js").Client} Client */

/**
 * An outgoing message. `content`: the text in its stored form; `edits`: the message that it edits; `failure`: why it was not
 * stored, null while it is being sent; `sequence`: where it is stored, null until that is known.
 * @typedef {{channelId: string, content: string, replyTo: string | undefined, edits: string | undefined, key: string, failure: string | null, sequence: number | null}} Outgoing
 */

const RELOADED = "the page was loaded again"; // while the message was being sent

/** @type {Map<string, Outgoing[]>} user -> messages; they outlive a session that ends */
const unsent = new Map();

/** Forget all unsent messages: the user has logged out. */
export function forgetUnsent() {
  unsent.clear();
}

/** Return the unsent messages by user, for storage across a reload. @returns {[string, Outgoing[]][]} */
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
   * @param {(sequence: number) => boolean} isShown whether the timeline of the open channel includes this sequence
   * @param {() => void} changed
   */
  constructor(client, isOpen, isShown, changed) {
    this.client = client;
    this.isOpen = isOpen;
    this.isShown = isShown;
    this.changed = changed;
  }

  /**
   * Send a message; again with the same key, so that it is stored once. Rejects if its failure is not in view.
   * @param {Outgoing} outgoing
   */
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

  /** Keep unstored messages for the user's next session: this one has ended, or the user leaves the page. @param {string} userId */
  keep(userId) {
    unsent.set(userId, this.items.filter(({ sequence }) => sequence === null));
  }

  /**
   * Take over the messages kept by the user's last session, and send those again that a reload interrupted.
   * @param {string} userId
   */
  takeUp(userId) {
    const left = (unsent.get(userId) ?? []).map((outgoing) => ({ ...outgoing, failure: outgoing.failure ?? "the session had ended" }));
    unsent.delete(userId);
    this.items.unshift(...left);
    this.changed();
    for (const outgoing of left) if (outgoing.failure === RELOADED) this.send(outgoing).catch(() => {}); // the timeline shows it
  }

  /** Drop stored messages that the timeline shows. Others wait for their event, which may arrive after the answer. */
  settle() {
    this.items = this.items.filter(({ channelId, sequence }) => sequence === null || (this.isOpen(channelId) && !this.isShown(sequence)));
    this.changed();
  }

  /** Drop the stored messages of a channel whose log has restarted: their events may never come. @param {string} channelId */
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
