/** Drives a GatewayMachine over WebSockets: opens and closes them, keeps its deadlines, gets tokens. */

import { ApiError, ConnectionEnded, isTemporary, OutcomeUnknown, STATUS_OF_CODE } from "./errors.js";
import { GatewayMachine } from "./machine.js";
import { Backoff, SESSION_ENDED } from "./policy.js";

/** @typedef {import("./phases.js").MachineEvent} MachineEvent */

/** The part of a WebSocket that is used; those of browsers, Node and the package `ws` have it.
 * @typedef {{readyState: number, send(message: string): void, close(code?: number): void,
 *   addEventListener(kind: string, listener: (event: any) => void): void}} Socket */
/** @typedef {new (url: string, subprotocols: string[]) => Socket} SocketClass */
/** @typedef {{now(): number, after(ms: number, call: () => void): () => void}} Clock `after` returns the timer's cancel function */

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
 * @property {string} url the gateway's address, `ws:` or `wss:`
 * @property {SocketClass} WebSocket
 * @property {(refused?: string) => Promise<string>} freshToken returns a token that does not expire soon and is not the refused one
 * @property {(event: MachineEvent) => void} tell passes an event to the client
 * @property {() => number} random
 * @property {Clock} clock
 */

/** A command that waits for its answer.
 * @typedef {{resolve: (result: any) => void, reject: (failure: Error) => void, key: string | undefined}} Waiting */

export class Gateway {
  /** @type {ConnectionEnded | null} the reason why the gateway has ended; null: it has not */
  end = null;
  /** @type {GatewayParts} */
  #parts;
  /** @type {Socket | null} */
  #socket = null;
  /** @type {(() => void) | null} cancels the timer */
  #timer = null;
  #isStepping = false;
  #isFollowing = false; // a microtask will ask for the logs that were added
  #attempt = 0; // counts attempts to connect; the outcome of an earlier one is ignored
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

  /** Begin to connect. Safe to repeat. */
  start() {
    if (this.machine.phase !== "idle") return;
    this.machine.start(this.#token, this.#parts.clock.now());
    this.#step();
  }

  /** @param {string} log @param {import("./types.js").ResumePosition | null} place @param {number} [tail] */
  follow(log, place, tail) {
    this.machine.follow(log, place, tail);
    if (this.#isFollowing) return;
    this.#isFollowing = true;
    queueMicrotask(() => { // logs that are added together go into one frame
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
   * Send a command, across connections until it is answered, and return its result. Rejects with ApiError (refused), OutcomeUnknown
   * (sent, but no answer within `patienceMs`) or ConnectionEnded (not sent).
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
        reject(tried ? new OutcomeUnknown("no response in time", command.key) : new ConnectionEnded(null, "no connection in time; nothing was sent"));
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

  /** Connect now instead of waiting for the next attempt. */
  hurry() {
    this.machine.hurry(this.#parts.clock.now());
    this.#step();
  }

  /** End the gateway, as if the server had closed it with `code` if one is given. Safe to repeat. */
  close(reason = "closed", /** @type {number | null} */ code = null) {
    this.machine.close(reason, code);
    this.#step();
  }

  // --- effects of the machine ----------------------------------------------------------------------------

  /** Carry out the machine's events, send its messages and set its timer. The outermost call does it for nested ones. */
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
    if (this.#socket?.readyState !== OPEN) return; // it is closing: unanswered commands are sent again on the next connection
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
      case "dropped": // a typing signal, which may be lost, or a read position, for which `null` means no answer
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
    } catch (failure) { // the page's security policy forbids it, for example
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
      if (this.machine.phase === "connecting") this.#lost(null, "no connection"); // Node 20 sends no `close` event then
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

  /** Get a new token, and use it for the open connection, too. */
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
   * Call `otherwise` after a temporary failure; else the session has ended, so end the gateway.
   * @param {unknown} failure
   * @param {() => void} otherwise
   */
  #tokenFailed(failure, otherwise) {
    if (failure instanceof OutcomeUnknown || (failure instanceof ApiError && isTemporary(failure.status))) otherwise();
    else this.machine.close("the session has ended", SESSION_ENDED);
    this.#step();
  }
}
