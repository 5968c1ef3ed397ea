/** Commands on messages. They go over the gateway, each with a key, so that the server performs them once (PROTOCOL 15.4). */

import { Api } from "./api.js";
import { randomKey } from "./keys.js";
import { encodeSegment as id } from "./texts.js";

/** @typedef {import("./types.js").PostedMessage} PostedMessage */
/** @typedef {import("./types.js").ChangedMessage} ChangedMessage */

/** All reject with ApiError (nothing was changed), OutcomeUnknown (repeat the call with its `key`), ConnectionEnded. @abstract */
export class Actions extends Api {
  /**
   * Send a command over the gateway, and repeat it until it is answered.
   * @abstract
   * @param {import("./commands.js").Command} _command
   * @returns {Promise<any>}
   */
  command(_command) {
    throw new Error("abstract");
  }

  /**
   * Post a message. It is stored once, even if the connection is lost. Rejects with ApiError (nothing was stored) and OutcomeUnknown
   * (post again with its `key`).
   * @param {string} channelId
   * @param {string} content
   * @param {{replyTo?: string | undefined, allowedMentions?: import("./types.js").AllowedMentions | undefined, key?: string | undefined}} [options]
   * @returns {Promise<PostedMessage>}
   */
  post(channelId, content, { replyTo, allowedMentions, key = randomKey() } = {}) {
    return this.command({ type: "post", channel_id: channelId, content, key, reply_to: replyTo, allowed_mentions: allowedMentions });
  }

  /** @param {string} channelId @param {string} eventId @param {string} content @param {{key?: string}} [options] @returns {Promise<ChangedMessage>} */
  edit(channelId, eventId, content, { key = randomKey() } = {}) {
    return this.command({ type: "edit", channel_id: channelId, event_id: eventId, content, key });
  }

  /** Redact a message; another user's message needs a reason. @param {string} channelId @param {string} eventId @param {{reason?: string | undefined, key?: string}} [options] @returns {Promise<ChangedMessage>} */
  redact(channelId, eventId, { reason, key = randomKey() } = {}) {
    return this.command({ type: "redact", channel_id: channelId, event_id: eventId, reason, key });
  }

  /** @param {string} channelId @param {string} eventId @param {string} emoji @param {{action?: "add" | "remove", key?: string}} [options] @returns {Promise<ChangedMessage>} */
  react(channelId, eventId, emoji, { action = "add", key = randomKey() } = {}) {
    return this.command({ type: "react", channel_id: channelId, event_id: eventId, emoji, action, key });
  }

  /**
   * Remove the reactions of all users to a message, as a moderator: those with `emoji`, or all.
   * @param {string} channelId
   * @param {string} eventId
   * @param {{emoji?: string | undefined, reason?: string | undefined, key?: string}} [options]
   * @returns {Promise<ChangedMessage>}
   */
  async clearReactions(channelId, eventId, { emoji, reason, key = randomKey() } = {}) {
    return (await this.request("DELETE", `/channels/${id(channelId)}/events/${id(eventId)}/reactions`, { query: { emoji, reason }, key })).body;
  }

  /**
   * Move the read position to a sequence, or to the newest event; it never moves back. The client sends one position a second, for
   * all channels together, and only the newest of each channel. Its answer also resolves the earlier calls.
   * @param {string} channelId
   * @param {number} [sequence]
   * @returns {Promise<import("./types.js").ReadPosition>}
   */
  read(channelId, sequence) {
    return this.command({ type: "read", channel_id: channelId, sequence });
  }

  /** Show that the user is writing, and the text if `preview` is given. Best effort. @param {string} channelId @param {string} [preview] @returns {Promise<void>} */
  typing(channelId, preview) {
    return this.command({ type: "typing", channel_id: channelId, preview });
  }

  /** @param {string} channelId @param {string} eventId @param {{key?: string}} [options] @returns {Promise<ChangedMessage>} */
  async pin(channelId, eventId, { key = randomKey() } = {}) {
    return (await this.request("PUT", `/channels/${id(channelId)}/pins/${id(eventId)}`, { key })).body;
  }

  /** @param {string} channelId @param {string} eventId @param {{key?: string}} [options] @returns {Promise<ChangedMessage>} */
  async unpin(channelId, eventId, { key = randomKey() } = {}) {
    return (await this.request("DELETE", `/channels/${id(channelId)}/pins/${id(eventId)}`, { key })).body;
  }
}
