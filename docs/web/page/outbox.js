/** What was written and is not stored yet. Where it fails it stays, until it is sent again or discarded. */

import { failureText } from "./dom.js";

/** @typedef {import("../openguild.js").Client} Client */

/** `content` as it is stored; `edits`: the message whose text it is to be; `failure`: why it was not stored, null while it is being sent.
 * @typedef {{channelId: string, content: string, replyTo: string | undefined, edits: string | undefined, key: string, failure: string | null}} Outgoing */

export class Outbox {
  /** @type {Outgoing[]} */
  items = [];

  /** @param {Client} client @param {(channelId: string) => boolean} isOpen @param {() => void} changed */
  constructor(client, isOpen, changed) {
    this.client = client;
    this.isOpen = isOpen;
    this.changed = changed;
  }

  /** Send; again with the same key, so that it is stored once. Rejects where its failure is not in view. @param {Outgoing} outgoing */
  async send(outgoing) {
    const { channelId, content, replyTo, edits, key } = outgoing;
    outgoing.failure = null;
    if (!this.items.includes(outgoing)) this.items.push(outgoing);
    this.changed();
    try {
      if (edits === undefined) await this.client.post(channelId, content, { replyTo, key });
      else await this.client.edit(channelId, edits, content, { key });
    } catch (failure) {
      outgoing.failure = failureText(failure);
      this.changed();
      if (!this.isOpen(channelId)) throw failure;
      return;
    }
    this.discard(outgoing);
  }

  /** @param {Outgoing} outgoing */
  discard(outgoing) {
    this.items = this.items.filter((other) => other !== outgoing);
    this.changed();
  }
}
