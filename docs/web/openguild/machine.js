/**
 * The client's side of the gateway, across many connections, without I/O and without a clock (PROTOCOL 15.9).
 *
 * The call contract, for every driver:
 * 1. feed: `start`, `connected`, `received`, `disconnected`, `handleDeadline`, or a command of the caller;
 * 2. carry out: all of `takeEvents()`; `connect` and `disconnect` are among them;
 * 3. send: all of `takeMessages()`;
 * 4. call `handleDeadline` at `nextDeadline()`.
 *
 * Times are milliseconds of one monotonic clock. `openguild_proto.gateway.client` is the same machine in Python; both pass the
 * cases of tests/conformance/client/.
 */

import { notSent, PendingCommands } from "./commands.js";
import { Deadlines } from "./deadlines.js";
import { OpenGuildError } from "./errors.js";
import { parseFrame } from "./frames.js";
import { FollowedLogs } from "./logs.js";
import { Outbox } from "./outbox.js";
import { DEADLINES, TRANSITIONS, WITH_SOCKET } from "./phases.js";
import { Backoff, afterClose, HANDSHAKE_MS, LOG_RETRY_MS, SILENT_HEARTBEATS, TEMPORARY_CODES } from "./policy.js";
import { Renewal } from "./renewal.js";
import { LONE_SURROGATE } from "./texts.js";

/** @typedef {import("./types.js").ResumePosition} ResumePosition */
/** @typedef {import("./phases.js").Phase} Phase */
/** @typedef {import("./phases.js").Input} Input */
/** @typedef {import("./phases.js").MachineEvent} MachineEvent */

export class GatewayMachine {
  /** @type {Phase} */
  phase = "idle";
  /** The followed logs and their places, for reading only. */
  logs = new FollowedLogs();
  #commands = new PendingCommands();
  #deadlines = new Deadlines();
  /** @type {MachineEvent[]} */
  #events = [];
  #outbox = new Outbox();
  #lastRef = 0;
  #token = "";
  #renewal = new Renewal();
  #heartbeatMs = 0;
  #openedAt = 0;

  /** @param {() => number} random a number in [0, 1) */
  constructor(random) {
    this.backoff = new Backoff(random);
  }

  // --- getters ---------------------------------------------------------------------------------------

  /** Remove and return all events. */
  takeEvents() {
    return this.#events.splice(0);
  }

  /** Remove and return all messages to send. Logs that were added since the last call are asked for together. */
  takeMessages() {
    if (this.#isConnected()) this.#askForLogs();
    return this.#outbox.take();
  }

  /** Return when to call `handleDeadline`; Infinity if no deadline is set. */
  nextDeadline() {
    return this.#deadlines.next();
  }

  // --- commands of the caller --------------------------------------------------------------------------

  /** Open the first connection. @param {string} token @param {number} now */
  start(token, now) {
    if (this.phase !== "idle") throw new OpenGuildError("the client has begun");
    this.#token = token;
    this.#connect("start", now);
  }

  /** Use another token from now on, on the open connection, too. @param {string} token @param {number} now */
  setToken(token, now) {
    this.#token = token;
    if (this.phase === "open") {
      const ref = this.#renewal.begin(() => this.#nextRef());
      if (ref > 0 && !this.#outbox.add({ type: "auth", token, ref })) this.#renewal.end(); // one that is too long gets no answer
    } else if (this.phase === "tokenless") {
      this.#move("token");
      if (this.#deadlines.get("reconnect") === undefined) this.#deadlines.set("reconnect", now);
    }
  }

  /**
   * Follow a log: after `place`, else with its newest `tail` events, else from now on. A log that is followed already moves there.
   * @param {string} log
   * @param {ResumePosition | null} [place]
   * @param {number} [tail]
   */
  follow(log, place = null, tail) {
    this.logs.add(log, place, tail);
  }

  /** Stop following a log. Safe to repeat. @param {string} log */
  unfollow(log) {
    if (this.logs.remove(log) && this.#isConnected()) this.#outbox.add({ type: "unsub", logs: [log] });
  }

  /**
   * Send a command, again on each new connection until it is answered. Return its ref. Text that is not valid Unicode fails at
   * once.
   * @param {import("./commands.js").Command} command with a key, unless it is safe to repeat
   */
  send(command) {
    const ref = this.#nextRef();
    if (!this.#commands.add(ref, command)) this.#events.push(notSent(ref, "invalid_json", LONE_SURROGATE));
    this.#ask();
    return ref;
  }

  /** Withdraw a command. Return whether it was ever sent. @param {number} ref */
  withdraw(ref) {
    return this.#commands.withdraw(ref);
  }

  /** Connect now instead of waiting for the next attempt: the network is back. @param {number} now */
  hurry(now) {
    if (this.phase === "waiting") this.#deadlines.set("reconnect", now);
  }

  /** End the client, as if the server had closed with `code` if one is given. Safe to repeat. */
  close(reason = "closed", /** @type {number | null} */ code = null) {
    if (this.phase === "ended") return;
    if (WITH_SOCKET.has(this.phase)) this.#events.push({ type: "disconnect" });
    this.#move("close");
    this.#outbox.take();
    this.#events.push({ type: "ended", code, reason });
  }

  // --- the machine -------------------------------------------------------------------------------------

  #nextRef() {
    this.#lastRef += 1;
    return this.#lastRef;
  }

  /** Change to the phase that `input` leads to; nothing else sets it. Return false if the input has no meaning now. @param {Input} input */
  #move(input) {
    const target = TRANSITIONS[this.phase][input];
    if (target === undefined) return false;
    if (target !== this.phase) {
      this.phase = target;
      this.#deadlines.clearAllBut(DEADLINES[target]);
    }
    return true;
  }

  #isConnected() {
    return this.phase === "authenticating" || this.phase === "open";
  }

  /** Send the waiting subscriptions and commands, unless the server drains or there is no connection. */
  #ask() {
    if (!this.#isConnected()) return;
    this.#askForLogs(); // first: a command may cause events of them
    for (const command of this.#commands.toSend()) {
      if (!this.#outbox.add(command) && this.#commands.answered(command.ref)) {
        this.#events.push(notSent(command.ref, "payload_too_large", "the request body is too large"));
      }
    }
  }

  #askForLogs() {
    for (const sub of this.logs.subs(() => this.#nextRef(), this.#outbox.frameBytes)) this.#outbox.add(sub);
  }

  // --- the connection ----------------------------------------------------------------------------------

  /** @param {Input} input @param {number} now */
  #connect(input, now) {
    if (!this.#move(input)) return;
    this.#deadlines.set("answer", now + HANDSHAKE_MS);
    this.#events.push({ type: "connect" });
  }

  /** Report that the WebSocket is open. @param {number} now */
  connected(now) {
    if (this.#move("connected")) this.#deadlines.set("answer", now + HANDSHAKE_MS);
  }

  /**
   * Report that the WebSocket has ended, with a close code or without one (null), or could not be opened (null).
   * @param {number | null} code
   * @param {string} reason
   * @param {number} now
   */
  disconnected(code, reason, now) {
    if (!WITH_SOCKET.has(this.phase)) return;
    const shown = code === null ? reason : `${code} ${reason}`.trim();
    switch (afterClose(code)) {
      case "final":
        this.#forgetConnection(now);
        this.#move("final");
        this.#events.push({ type: "ended", code, reason });
        break;
      case "token":
        this.#forgetConnection(now);
        this.#move("token_refused");
        this.#events.push({ type: "interrupted", reason: shown, retryMs: null });
        this.#needToken(this.backoff.nextDelay({ atOnce: true }), now);
        break;
      default:
        this.#lost(shown, now);
    }
  }

  /** Wait first, and ask for a token afterwards: it may be short-lived. @param {number} delay @param {number} now */
  #needToken(delay, now) {
    if (delay > 0) this.#deadlines.set("reconnect", now + delay);
    else this.#events.push({ type: "token_needed", expiresInMs: null });
  }

  /** Schedule the next connection: in the server's slot, else with backoff. @param {string} reason @param {number} now */
  #lost(reason, now) {
    this.#forgetConnection(now);
    const slot = this.#deadlines.get("slot");
    const retryMs = slot === undefined ? this.backoff.nextDelay() : Math.max(slot - now, 0);
    this.#move("lost");
    this.#deadlines.set("reconnect", now + retryMs);
    this.#events.push({ type: "interrupted", reason, retryMs });
  }

  /** @param {string} reason @param {number} now */
  #giveUp(reason, now) {
    this.#events.push({ type: "disconnect" });
    this.#lost(reason, now);
  }

  /** @param {number} now */
  #forgetConnection(now) {
    if (this.phase === "open" || this.phase === "draining") this.backoff.lasted(now - this.#openedAt);
    if (this.phase === "draining") this.backoff.reset(); // the server drains: nothing has failed
    this.#outbox.take();
    this.#renewal.end();
    this.logs.disconnected();
    for (const ref of this.#commands.disconnected()) this.#events.push({ type: "dropped", ref });
  }

  /** Act on the deadlines that have passed; early calls do nothing. @param {number} now */
  handleDeadline(now) {
    for (let name = this.#deadlines.takeExpired(now); name !== undefined; name = this.#deadlines.takeExpired(now)) {
      switch (name) {
        case "reconnect":
          if (this.phase === "tokenless") this.#needToken(0, now);
          else this.#connect("due", now);
          break;
        case "heartbeat":
          this.#deadlines.set(name, now + this.#heartbeatMs);
          this.#outbox.add({ type: "hb" });
          break;
        case "retry":
          this.logs.wake();
          this.#ask();
          if (this.#renewal.isResting) this.setToken(this.#token, now);
          break;
        case "slot":
          this.#deadlines.set(name, now); // reconnect at once
          this.#giveUp("the server stops", now);
          break;
        case "answer":
          this.#giveUp("no response in time", now);
          break;
        case "silence":
          this.#giveUp("the server does not respond", now);
      }
    }
  }

  // --- the server's messages ---------------------------------------------------------------------------

  /** Handle a message of the server. @param {unknown} payload @param {number} now */
  received(payload, now) {
    if (!WITH_SOCKET.has(this.phase)) return;
    if (this.#deadlines.has("silence")) this.#deadlines.set("silence", now + SILENT_HEARTBEATS * this.#heartbeatMs);
    let frame;
    try {
      frame = parseFrame(payload);
    } catch (fault) {
      if (!(fault instanceof SyntaxError)) throw fault;
      this.#giveUp(`not a gateway frame: ${fault.message}`, now);
      return;
    }
    if (frame !== null) this.#take(frame, now);
  }

  /** @param {import("./frames.js").ServerFrame} frame @param {number} now */
  #take(frame, now) {
    switch (frame.type) {
      case "ev":
        return this.#takeEvent(frame);
      case "hello":
        if (!this.#move("hello")) return;
        this.#heartbeatMs = Math.max(frame.heartbeat_ms, 1);
        this.#outbox.frameBytes = frame.limits.frame_bytes;
        this.#deadlines.set("answer", now + HANDSHAKE_MS);
        this.#outbox.add({ type: "auth", token: this.#token });
        return this.#ask(); // the server handles these frames after the `auth`
      case "ready":
        if (!this.#move("ready")) return;
        this.#openedAt = now;
        this.#deadlines.set("heartbeat", now + this.#heartbeatMs);
        this.#deadlines.set("silence", now + SILENT_HEARTBEATS * this.#heartbeatMs);
        this.#events.push({ type: "opened", ready: frame });
        return;
      case "drain":
        if (!this.#move("drain")) return;
        this.#deadlines.set("slot", now + frame.reconnect_after_ms);
        this.#events.push({ type: "draining", afterMs: frame.reconnect_after_ms });
        return;
      default:
        if (this.#isConnected() || this.phase === "draining") this.#takeAnswer(frame, now);
    }
  }

  /** @param {import("./frames.js").ServerFrame & {type: "ev"}} frame */
  #takeEvent(frame) {
    const arrival = this.logs.arrived(frame);
    if (arrival === "next") {
      this.backoff.reset();
      this.#events.push({ type: "event", log: frame.log, epoch: frame.epoch, sequence: frame.seq, event: frame.event });
    } else if (arrival === "gap") this.#ask();
  }

  /** @param {import("./frames.js").ServerFrame} frame @param {number} now */
  #takeAnswer(frame, now) {
    switch (frame.type) {
      case "ok":
        if (this.#renewal.isAnsweredBy(frame.ref)) this.#renewed(now);
        else if (this.#commands.answered(frame.ref)) {
          this.backoff.reset();
          this.#events.push({ type: "answered", ref: frame.ref, result: frame.result ?? null });
          this.#ask();
        }
        break;
      case "err":
        this.#takeRefusal(frame, now);
        break;
      case "sub_ok":
        for (const line of frame.logs) if (this.logs.begun(frame.ref, line)) this.#events.push({ type: "followed", ...line });
        break;
      case "gone":
        if (this.logs.gone(frame.log, frame.code)) {
          this.#events.push({ type: "gone", log: frame.log, code: frame.code });
          this.#rest(now);
          this.#ask();
        }
        break;
      case "auth_expiring":
        this.#events.push({ type: "token_needed", expiresInMs: frame.expires_in_ms });
        break;
      case "lagging":
        if (this.logs.has(frame.log)) this.#events.push({ type: "lagging", log: frame.log, head: frame.head });
        break;
      case "live":
        if (this.logs.has(frame.log)) this.#events.push({ type: "live", log: frame.log });
        break;
      case "eph":
        if (this.logs.has(frame.log)) this.#events.push({ type: "ephemeral", log: frame.log, kind: frame.kind, data: frame.data });
    }
  }

  /** End the renewal, and begin the next one if the token has changed meanwhile. Return whether it has. @param {number} now */
  #renewed(now) {
    const again = this.#renewal.end();
    if (again) this.setToken(this.#token, now);
    return again;
  }

  /** @param {import("./frames.js").ServerFrame & {type: "err"}} err @param {number} now */
  #takeRefusal(err, now) {
    if (typeof err.log === "string") {
      const again = this.logs.refused(err.ref, err.log, err.code);
      if (again) this.#rest(now);
      else if (again === false) this.#events.push({ type: "refused", log: err.log, code: err.code, message: err.message });
    } else if (this.#renewal.isAnsweredBy(err.ref)) {
      if (TEMPORARY_CODES.has(err.code)) {
        this.#renewal.rest();
        this.#rest(now);
      } else if (!this.#renewed(now)) this.#events.push({ type: "token_needed", expiresInMs: null });
    } else {
      const { ref, code, message, retry_after_ms: retryAfterMs, details = [] } = err;
      const mayBeDone = this.#commands.refused(ref, code, now);
      if (mayBeDone === undefined) return;
      if (this.#commands.wantsAnotherServer(now)) this.#giveUp("the server has no database", now);
      this.#events.push({ type: "failed", ref, code, message, retryAfterMs: retryAfterMs ?? undefined, details, mayBeDone });
      this.#ask();
    }
  }

  /** @param {number} now */
  #rest(now) {
    if (!this.#deadlines.has("retry")) this.#deadlines.set("retry", now + LOG_RETRY_MS + this.backoff.nextDelay());
  }
}
