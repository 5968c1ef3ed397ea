/** Drives a GatewayMachine over WebSockets: opens and closes them, keeps its deadlines, gets tokens. */

import { ApiError, ConnectionEnded, isTemporary, OutcomeUnknown, STATUS_OF_CODE } from "./errors.js";
import { GatewayMachine } from "./machine.js";
import { Backoff, SESSION_ENDED } from "./policy.js";

/** @typedef {import("./phases.js").MachineEvent} MachineEvent */

/** What of a WebSocket is used: a browser's, Node's, or that of the package `ws`.
 * @typedef {{readyState: number, send(message: string): void, close(code?: number): void,
 *   addEventListener(kind: string, listener: (event: any) => void): void}} Socket */
/** @typedef {new (url: string, subprotocols: string[]) => Socket} SocketClass */
/** @typedef {{now(): number, after(ms: number, call: () => void): () => void}} Clock `after` returns what cancels it */

/** @type {Clock} */
export const CLOCK = {
  now: () => performance.now(),
  after(ms, call) {
    const timer = setTimeout(call, Math.min(ms, 0x7fffffff));
    return () => clearTimeout(timer);
  },
};

const OPEN = 1; // WebSocket.OPEN

/**
 * @typedef {object} GatewayParts
 * @property {string} url of the gateway, `ws:` or `wss:`
 * @property {SocketClass} WebSocket
 * @property {(refused?: string) => Promise<string>} freshToken a token that is good for a while, and is not the refused one
 * @property {(event: MachineEvent) => void} tell what the client is told
 * @property {() => number} random
 * @property {Clock} clock
 */

/** A command that waits for its answer.
 * @typedef {{resolve: (result: any) => void, reject: (failure: Error) => void, key: string | undefined}} Waiting */

export class Gateway {
  /** @type {ConnectionEnded | null} what has ended it */
  end = null;
  /** @type {GatewayParts} */
  #parts;
  /** @type {Socket | null} */
  #socket = null;
  /** @type {(() => void) | null} cancels the timer */
  #timer = null;
  #isStepping = false;
  #isFollowing = false; // whether what is followed is to be asked for in a moment
  #attempt = 0; // of connecting; what an earlier one finds is ignored
  #token = "";
  #isRenewing = false;
  /** @type {Backoff} between attempts to get a token */
  #renewals;
  /** Cancels the next attempt to renew the token. */
  #cancelRenewal = () => {};
  /** @type {Map<number, Waiting>} */
  #waiting = new Map();

  /** @param {GatewayParts} parts */
  constructor(parts) {
    this.#parts = parts;
    this.machine = new GatewayMachine(parts.random);
    this.#renewals = new Backoff(parts.random, 1_000);
  }

  // --- commands of the caller --------------------------------------------------------------------------

  /** Begin. Safe to repeat. */
  start() {
    if (this.machine.phase !== "idle") return;
    this.machine.start(this.#token, this.#parts.clock.now());
    this.#step();
  }

  /** @param {string} log @param {import("./types.js").Place | null} place @param {number} [tail] */
  follow(log, place, tail) {
    this.machine.follow(log, place, tail);
    if (this.#isFollowing) return;
    this.#isFollowing = true;
    queueMicrotask(() => { // those that are named at once are asked for in one frame
      this.#isFollowing = false;
      this.#step();
    });
  }

  /** @param {string} log */
  unfollow(log) {
    this.machine.unfollow(log);
    this.#step();
  }

  /**
   * Send a command until it is answered, across connections; its result. Rejects with ApiError (refused), OutcomeUnknown
   * (sent, and no answer within `patienceMs`) or ConnectionEnded.
   * @param {import("./commands.js").Command} command
   * @param {number} patienceMs
   * @returns {Promise<any>}
   */
  send(command, patienceMs) {
    if (this.end !== null) return Promise.reject(this.end);
    /** @type {number} */
    let ref;
    try {
      ref = this.machine.send(command);
    } catch (failure) {
      return Promise.reject(failure);
    }
    const answer = new Promise((resolve, reject) => {
      const cancel = this.#parts.clock.after(patienceMs, () => {
        this.#waiting.delete(ref);
        const tried = this.machine.withdraw(ref);
        reject(tried ? new OutcomeUnknown("no answer in time", command.key) : new ConnectionEnded(null, "no connection in time; nothing was sent"));
      });
      this.#waiting.set(ref, {
        key: command.key,
        resolve: (result) => (cancel(), resolve(result)),
        reject: (failure) => (cancel(), reject(failure)),
      });
    });
    this.#step();
    return answer;
  }

  /** Connect now, where a connection is waited for. */
  hurry() {
    this.machine.hurry(this.#parts.clock.now());
    this.#step();
  }

  /** End it, as with a close code of the server if one is given. Safe to repeat. */
  close(reason = "closed", /** @type {number | null} */ code = null) {
    this.machine.close(reason, code);
    this.#step();
  }

  // --- carrying out --------------------------------------------------------------------------------------

  /** Carry out what the machine wants. Listeners may call it again: then the outer call goes on with what they caused. */
  #step() {
    if (this.#isStepping) return;
    this.#isStepping = true;
    try {
      for (let events = this.machine.takeEvents(); events.length > 0; events = this.machine.takeEvents()) {
        for (const event of events) this.#carryOut(event);
      }
      this.#send();
    } finally {
      this.#isStepping = false;
    }
    this.#timer?.();
    this.#timer = null;
    const deadline = this.machine.nextDeadline();
    if (deadline === Infinity) return;
    this.#timer = this.#parts.clock.after(Math.max(deadline - this.#parts.clock.now(), 0), () => {
      this.#timer = null;
      this.machine.handleDeadline(this.#parts.clock.now());
      this.#step();
    });
  }

  #send() {
    const messages = this.machine.takeMessages();
    if (this.#socket?.readyState !== OPEN) return; // it is closing: its end is told, and what was not answered is sent again
    for (const message of messages) this.#socket.send(message);
  }

  /** @param {MachineEvent} event */
  #carryOut(event) {
    const { tell } = this.#parts;
    switch (event.type) {
      case "connect":
        tell(event);
        return void this.#connect();
      case "disconnect":
        return this.#disconnect();
      case "token_needed":
        tell(event);
        return void this.renew();
      case "answered":
        return this.#take(event.ref)?.resolve(event.result);
      case "dropped": // a sign of typing, which may be missed, or a read position: `null` is no answer to it
        return this.#take(event.ref)?.resolve(null);
      case "failed": {
        const { code, message, retryAfterMs, details, mayBeDone } = event;
        const retryAfter = retryAfterMs === undefined ? {} : { retryAfter: retryAfterMs / 1_000 };
        return this.#take(event.ref)?.reject(new ApiError(STATUS_OF_CODE[code] ?? 400, code, message, { ...retryAfter, details, mayBeDone }));
      }
      case "ended":
        this.end = new ConnectionEnded(event.code, event.reason);
        this.#disconnect();
        this.#cancelRenewal();
        for (const [ref, waiting] of this.#waiting) {
          const tried = this.machine.withdraw(ref);
          waiting.reject(tried ? new OutcomeUnknown(event.reason, waiting.key) : this.end);
        }
        this.#waiting.clear();
        return tell(event);
      default:
        return tell(event);
    }
  }

  /** @param {number} ref */
  #take(ref) {
    const waiting = this.#waiting.get(ref);
    this.#waiting.delete(ref);
    return waiting;
  }

  // --- connections ---------------------------------------------------------------------------------------

  async #connect() {
    const attempt = ++this.#attempt;
    const { clock, freshToken, url, WebSocket } = this.#parts;
    let token;
    try {
      token = await freshToken();
    } catch (failure) {
      if (attempt === this.#attempt) this.#tokenFailed(failure, () => this.machine.disconnected(null, String(failure), clock.now()));
      return;
    }
    if (attempt !== this.#attempt || this.machine.phase !== "connecting") return;
    this.#token = token;
    this.machine.setToken(token, clock.now());
    /** @type {Socket} */
    let socket;
    try {
      socket = new WebSocket(url, ["openguild.v2"]);
    } catch (failure) { // such as a page that may not open it
      this.#lost(null, String(failure));
      return this.#step();
    }
    this.#socket = socket;
    /** @param {(event: any) => void} listener @returns {(event: any) => void} */
    const ifCurrent = (listener) => (event) => {
      if (this.#socket !== socket) return;
      listener(event);
      this.#step();
    };
    socket.addEventListener("open", ifCurrent(() => this.machine.connected(clock.now())));
    socket.addEventListener("message", ifCurrent((event) => this.machine.received(event.data, clock.now())));
    socket.addEventListener("error", ifCurrent(() => {
      if (this.machine.phase === "connecting") this.#lost(null, "no connection"); // Node 20 tells no `close` then; else one follows
    }));
    socket.addEventListener("close", ifCurrent(({ code, reason }) => {
      this.#lost(code === 1005 || code === 1006 ? null : code, reason || "the connection was lost");
    }));
  }

  /** @param {number | null} code @param {string} reason */
  #lost(code, reason) {
    this.#socket = null;
    this.machine.disconnected(code, reason, this.#parts.clock.now());
  }

  #disconnect() {
    this.#attempt += 1;
    this.#socket?.close();
    this.#socket = null;
  }

  // --- tokens --------------------------------------------------------------------------------------------

  /** Get another token, for the open connection too. */
  async renew() {
    if (this.#isRenewing) return;
    this.#isRenewing = true;
    const refused = this.#token;
    try {
      this.#token = await this.#parts.freshToken(refused);
      this.#renewals.reset();
      this.machine.setToken(this.#token, this.#parts.clock.now());
    } catch (failure) {
      this.#tokenFailed(failure, () => this.#renewLater(refused));
    } finally {
      this.#isRenewing = false;
    }
    this.#step();
  }

  /** @param {string} refused */
  #renewLater(refused) {
    this.#cancelRenewal();
    if (this.machine.phase === "ended") return;
    this.#cancelRenewal = this.#parts.clock.after(this.#renewals.nextDelay(), () => {
      if (this.#token === refused) void this.renew();
    });
  }

  /**
   * Do `otherwise` where there may be a token later, else end: there is no session any more.
   * @param {unknown} failure
   * @param {() => void} otherwise
   */
  #tokenFailed(failure, otherwise) {
    if (failure instanceof OutcomeUnknown || (failure instanceof ApiError && isTemporary(failure.status))) otherwise();
    else this.machine.close("the session has ended", SESSION_ENDED);
    this.#step();
  }
}
