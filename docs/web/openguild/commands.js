/** A client's unanswered commands, in order, across connections (PROTOCOL 15.9.3). */

import { leavesOpen, OpenGuildError } from "./errors.js";
import { DATABASE_PATIENCE_MS, MAX_HELD_FRAMES, MAX_PENDING_COMMANDS } from "./policy.js";
import { isWellFormed } from "./texts.js";

/** A frame of PROTOCOL 15.1.5 without its `ref`.
 * @typedef {{type: "post" | "edit" | "redact" | "react" | "read" | "typing", channel_id: string, key?: string, [member: string]: unknown}} Command */

/**
 * Return the `failed` event of a command that is not sent, because the server would refuse it.
 * @param {number} ref
 * @param {string} code
 * @param {string} message
 * @returns {import("./phases.js").MachineEvent}
 */
export const notSent = (ref, code, message) => ({ type: "failed", ref, code, message, retryAfterMs: undefined, details: [], mayBeDone: false });

export class PendingCommands {
  /** @type {Map<number, Command & {ref: number}>} */
  #commands = new Map();
  /** @type {Set<number>} refs, in order */
  #unsent = new Set();
  /** @type {Set<number>} refs of commands that were sent at least once */
  #tried = new Set();
  /** @type {Set<number>} refs of commands that were sent over a connection that has ended */
  #lost = new Set();
  /** @type {number | null} the time of the first of the latest refusals that were all `database_unavailable` */
  #withoutDatabase = null;

  /**
   * Keep a command until it is answered. Return false if a text in it is not valid Unicode and cannot be sent. Throws if too many
   * wait.
   * @param {number} ref
   * @param {Command} command with its key
   */
  add(ref, command) {
    if (this.#commands.size >= MAX_PENDING_COMMANDS) {
      throw new OpenGuildError(`${MAX_PENDING_COMMANDS} commands are not answered yet`);
    }
    if (!isWellFormed(command)) return false;
    const { type, ...members } = command;
    this.#commands.set(ref, { type, ref, ...members });
    this.#unsent.add(ref);
    return true;
  }

  /** Return the commands to send now, in order: at most as many unanswered ones as the server queues. */
  toSend() {
    const frames = [];
    for (const ref of this.#unsent) {
      if (this.#commands.size - this.#unsent.size >= MAX_HELD_FRAMES) break;
      this.#unsent.delete(ref);
      this.#tried.add(ref);
      frames.push(/** @type {Command & {ref: number}} */ (this.#commands.get(ref)));
    }
    return frames;
  }

  /**
   * Forget a command that was answered. Return false if no command waits for this answer.
   * @param {number} ref
   */
  answered(ref) {
    if (this.#unsent.has(ref) || !this.#commands.delete(ref)) return false;
    this.#tried.delete(ref);
    this.#lost.delete(ref);
    this.#withoutDatabase = null;
    return true;
  }

  /**
   * Forget a command that was refused. Return whether this attempt, or one on an earlier connection, may have been carried out all
   * the same; undefined if no command waits for this answer.
   * @param {number} ref
   * @param {string} code
   * @param {number} now
   */
  refused(ref, code, now) {
    const mayBeDone = leavesOpen(code) || this.#lost.has(ref);
    const since = this.#withoutDatabase;
    if (!this.answered(ref)) return undefined;
    if (code === "database_unavailable") this.#withoutDatabase = since ?? now;
    return mayBeDone;
  }

  /**
   * Return whether the server's database has been unavailable for so long that the client should try another server.
   * @param {number} now
   */
  wantsAnotherServer(now) {
    return this.#withoutDatabase !== null && now - this.#withoutDatabase >= DATABASE_PATIENCE_MS;
  }

  /**
   * Withdraw a command; a late answer is ignored. Return whether it was ever sent.
   * @param {number} ref
   */
  withdraw(ref) {
    this.#unsent.delete(ref);
    this.#commands.delete(ref);
    this.#lost.delete(ref);
    return this.#tried.delete(ref);
  }

  /**
   * Mark all commands to be sent again, with the same keys: sent ones may not have arrived. Return the refs of the dropped ones: a
   * typing signal is stale, and the read position may be newer by now.
   */
  disconnected() {
    const dropped = [...this.#commands.values()].filter(({ type }) => type === "typing" || type === "read").map(({ ref }) => ref);
    for (const ref of dropped) this.withdraw(ref);
    this.#withoutDatabase = null;
    for (const ref of this.#commands.keys()) if (!this.#unsent.has(ref)) this.#lost.add(ref);
    this.#unsent = new Set(this.#commands.keys());
    return dropped;
  }
}
