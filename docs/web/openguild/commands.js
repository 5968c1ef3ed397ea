/** The commands of a client that are not answered yet, in order, across connections (PROTOCOL 15.9.3). */

import { leavesOpen, OpenGuildError } from "./errors.js";
import { DATABASE_PATIENCE_MS, MAX_HELD_FRAMES, MAX_PENDING_COMMANDS } from "./policy.js";
import { isWellFormed } from "./texts.js";

/** A frame of PROTOCOL 15.1.5 without its `ref`.
 * @typedef {{type: "post" | "edit" | "redact" | "react" | "read" | "typing", channel_id: string, key?: string, [member: string]: unknown}} Command */

/**
 * The event of a command that is not sent, as the server would refuse it.
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
  /** @type {Set<number>} refs of those that were sent at least once */
  #tried = new Set();
  /** @type {Set<number>} refs of those that were sent over a connection that has ended */
  #lost = new Set();
  /** @type {number | null} since when the server has answered nothing else than that it has no database */
  #withoutDatabase = null;

  /**
   * Keep a command until it is answered. False: a text in it is not Unicode, and cannot be sent. Throws when too many wait.
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

  /** Return what is to be sent now, in order: only so much that the server holds it. */
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
   * A command has its answer. Return false if it was not one that waits for it.
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
   * A command was refused. Return whether it may be done all the same: this attempt, or one on an earlier connection. Undefined: it was
   * none that waits for an answer.
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

  /** Whether the server has had no database for so long that another one may do better. @param {number} now */
  wantsAnotherServer(now) {
    return this.#withoutDatabase !== null && now - this.#withoutDatabase >= DATABASE_PATIENCE_MS;
  }

  /**
   * Give a command up. An answer that still comes is not told. Return whether it was ever sent.
   * @param {number} ref
   */
  withdraw(ref) {
    this.#unsent.delete(ref);
    this.#commands.delete(ref);
    this.#lost.delete(ref);
    return this.#tried.delete(ref);
  }

  /**
   * What was sent may not have arrived: all of it is sent again, under its keys. Return the refs of what is not: nobody is writing any
   * more, and the position that a user has read up to may be a newer one by now.
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
