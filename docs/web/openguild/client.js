/** The client: a session, the HTTP routes, and one gateway socket for everything else. */

import { Actions } from "./actions.js";
import { ApiError, ConnectionEnded, isTemporary, OpenGuildError } from "./errors.js";
import { Everything } from "./everything.js";
import { CLOCK, Gateway } from "./gateway.js";
import { Http, originOf } from "./http.js";
import { randomKey } from "./keys.js";
import { Listeners } from "./listeners.js";
import { SESSION_ENDED } from "./policy.js";
import { ReadMarker } from "./reads.js";
import { sendUntilAnswered } from "./retries.js";
import { pairOf, payloadOf, SessionKeeper } from "./session.js";
import { placesOf } from "./stored.js";
import { Subscriptions } from "./subscriptions.js";
import { signalOf } from "./told.js";

/** @typedef {import("./types.js").LogEvent} LogEvent */
/** @typedef {import("./types.js").ResumePosition} ResumePosition */
/** @typedef {import("./types.js").Ready} Ready */
/** @typedef {import("./types.js").Beginning} Beginning */
/** @typedef {import("./phases.js").MachineEvent} MachineEvent */
/** @typedef {import("./told.js").Status} Status */
/** @typedef {import("./told.js").Told} Told */

/** What `toJSON` returns, for storage. Protect it like a password.
 * @typedef {{url: string, device_id: string, session: import("./session.js").StoredSession | null, positions: Record<string, [number, number]>}} StoredClient */

/**
 * @typedef {object} ClientOptions
 * @property {import("./gateway.js").SocketClass} [WebSocket] if there is no global one; the class of the package `ws`, for example
 * @property {typeof fetch} [fetch]
 * @property {string} [deviceId] keep it to remain the same device after a restart; a login ends the device's earlier session
 * @property {number} [retryMs] how long requests and commands are retried, in milliseconds; 60,000 by default
 * @property {import("./gateway.js").Clock} [clock] the gateway's clock, for tests
 * @property {() => number} [random]
 */

export class Client extends Actions {
  /** The user's id, known from the first connection on. */
  userId = "";
  /** @type {Http} */
  #http;
  #newLink;
  /** The gateway, read marker and subscriptions of one session; another login replaces them. */
  #link;
  /** @type {SessionKeeper} */
  #session;
  #random;
  #retryMs;
  #closing = new AbortController();
  #listeners = new Listeners();
  /** @type {Everything | null} */
  #everything = null;
  /** @type {import("./types.js").PresenceStatus | null} */
  #presence = null;
  /** @type {Status} */
  #status = { state: "ended", reason: "not connected", retryMs: null };
  /** @type {Ready | null} */
  #ready = null;

  /**
   * @param {string} url the server's address, such as `https://chat.example.org`
   * @param {ClientOptions} [options]
   */
  constructor(url, { WebSocket, fetch = globalThis.fetch, deviceId, retryMs = 60_000, clock = CLOCK, random = Math.random } = {}) {
    super();
    this.url = originOf(url);
    this.deviceId = deviceId ?? `web-${randomKey()}`;
    this.#random = random;
    this.#retryMs = retryMs;
    const base = `${this.url}/client/v1`;
    /** @param {string} [refused] */
    const freshToken = (refused) => this.#session.fresh(refused);
    const closed = this.#closing.signal;
    this.#http = new Http({ base, fetch, random, retryMs, freshToken, closed, left: () => this.#link.leaving.signal });
    /** @param {string} refreshToken */
    const exchange = async (refreshToken) => {
      const options = { body: { refresh_token: refreshToken }, authorized: false, repeatable: true }; // PROTOCOL 4.6.4
      return pairOf((await this.#http.send("POST", "/sessions/refresh", options)).body);
    };
    this.#session = new SessionKeeper(exchange, (session) => this.#listeners.tell("session", session));
    const SocketClass = WebSocket ?? /** @type {import("./gateway.js").SocketClass | undefined} */ (globalThis.WebSocket);
    if (SocketClass === undefined) throw new OpenGuildError("this program has no WebSocket: start Node 20 with --experimental-websocket, or give one as an option");
    /** @param {MachineEvent} told */
    const tell = (told) => this.#told(told);
    const gatewayUrl = `${base.replace(/^http/, "ws")}/gateway`;
    /** @param {Map<string, ResumePosition>} places how far each log was handled */
    this.#newLink = (places) => {
      const gateway = new Gateway({ url: gatewayUrl, WebSocket: SocketClass, freshToken, tell, random, clock });
      const reads = new ReadMarker({
        ready: () => this.connect(),
        attempt: (command) => gateway.send(command, retryMs),
        renew: () => void gateway.renew(),
        clock,
        random,
      });
      const subscriptions = new Subscriptions(gateway, places, () => this.isLoggedIn && gateway.start());
      return { gateway, reads, subscriptions, leaving: new AbortController() };
    };
    this.#link = this.#newLink(new Map());
  }

  // --- session -------------------------------------------------------------------------------------------

  /** @override @param {string} method @param {string} path @param {import("./http.js").RequestOptions} [options] */
  request(method, path, options) {
    return this.#http.send(method, path, options);
  }

  /** Create an account; return its user id. Not retried: after OutcomeUnknown try to log in. @param {string} username @param {string} password */
  async register(username, password) {
    const { body } = await this.request("POST", "/users/register", { body: { username, password }, authorized: false });
    return /** @type {string} */ (body.user_id);
  }

  /**
   * Log in. An earlier session ends, with its gateway and all pending calls; the gateway opens again when it is needed.
   * Logs that are followed again continue where they were, for the same user.
   * @param {string} username
   * @param {string} password
   */
  async login(username, password) {
    const body = { identifier: username, secret: password, device: { device_id: this.deviceId } };
    const pair = pairOf((await this.request("POST", "/sessions/login", { body, authorized: false, repeatable: true })).body);
    const { gateway, subscriptions } = this.#link;
    if (this.isLoggedIn || gateway.machine.phase !== "idle") {
      const isSameUser = [null, payloadOf(pair.access_token).user_id].includes(this.#session.userId);
      if (!isSameUser) this.#presence = null;
      this.#leave("logged in again", SESSION_ENDED);
      this.#link = this.#newLink(isSameUser ? subscriptions.places() : new Map());
    }
    this.#session.keep(pair);
    this.#link.subscriptions.begin();
  }

  /** @param {string} reason @param {number | null} code */
  #leave(reason, code) {
    const { gateway, leaving } = this.#link;
    gateway.close(reason, code);
    leaving.abort(new ConnectionEnded(code, reason));
  }

  /** End the session, and close this client. */
  async logout() {
    await this.#session.settled();
    const session = this.#session.stored;
    if (session !== null) {
      const body = { refresh_token: session.refresh_token };
      try {
        await this.request("POST", "/sessions/revoke", { body, authorized: false, repeatable: true });
      } catch (refusal) {
        if (!(refusal instanceof ApiError) || isTemporary(refusal.status)) throw refusal; // else the session had ended already
      }
      this.#session.forget();
    }
    this.close();
  }

  get isLoggedIn() {
    return this.#session.stored !== null;
  }

  /**
   * Return the state for `Client.fromJSON`: the session, and the last handled place of each log. An event is handled after its
   * listeners, in a loop when the next one is requested. Store it at each `session` event, and whenever positions should be saved.
   * @returns {StoredClient}
   */
  toJSON() {
    /** @type {StoredClient["positions"]} */
    const positions = {};
    for (const [log, { epoch, sequence }] of this.#link.subscriptions.places()) positions[log] = [epoch, sequence];
    return { url: this.url, device_id: this.deviceId, session: this.#session.stored, positions };
  }

  /** Return a client that continues from a result of `toJSON`, else throw OpenGuildError. @param {StoredClient} stored @param {ClientOptions} [options] */
  static fromJSON(stored, options = {}) {
    const places = placesOf(stored);
    const client = new Client(stored.url, { ...options, deviceId: stored.device_id });
    if (stored.session !== null) client.#session.restore(stored.session);
    client.#link = client.#newLink(places);
    return client;
  }

  // --- the connection ------------------------------------------------------------------------------------

  /** The current state of the gateway. */
  get status() {
    return this.#status;
  }

  /** Open the gateway and resolve when it is open. Calls that need it do this by themselves. Rejects with ConnectionEnded. */
  async connect() {
    if (!this.isLoggedIn) throw new OpenGuildError("log in first");
    this.#link.gateway.start();
    if (this.#ready !== null) return this.#ready;
    return await /** @type {Promise<Ready>} */ (new Promise((resolve, reject) => {
      const stop = this.on("ready", (ready) => (stop(), unwatch(), resolve(ready)));
      const check = () => {
        if (this.#link.gateway.end !== null) (stop(), unwatch(), reject(this.#link.gateway.end));
      };
      const unwatch = this.on("status", check);
      check();
    }));
  }

  /** Connect at once instead of waiting for the next attempt; call it when the network is back. */
  wake() {
    this.#link.gateway.hurry();
  }

  /** End the gateway and all loops and retries. The session stays. */
  close() {
    this.#leave("closed", null);
    this.#closing.abort(this.#link.leaving.signal.reason);
  }

  // --- listeners -----------------------------------------------------------------------------------------

  /**
   * Add a listener; return its remover. An unknown name throws OpenGuildError. A listener's error is uncaught and stops no other.
   * @template {keyof Told} K
   * @overload
   * @param {K} name
   * @param {(told: Told[K]) => void} listener
   * @returns {() => void}
   */
  /**
   * @overload
   * @param {`${string}.${string}` | "mentioned"} name an `event_type`
   * @param {(told: LogEvent) => void} listener
   * @returns {() => void}
   */
  /** @param {string} name @param {(told: any) => void} listener */
  on(name, listener) {
    return this.#listeners.add(name, listener);
  }

  /** Tell listeners of `failure` about background work; without any, it is uncaught. @param {unknown} failure @param {AbortSignal} left */
  #failed(failure, left) {
    if (left.aborted) return; // the session was left, or the client closed
    if (this.#listeners.has("failure")) this.#listeners.tell("failure", failure);
    else queueMicrotask(() => Promise.reject(failure));
  }

  /** @param {MachineEvent} told */
  #told(told) {
    this.#everything?.prepare(told);
    this.#tell(told);
    this.#everything?.hear(told);
    if (told.type === "ended") this.#everything = null;
  }

  /** @param {MachineEvent} told */
  #tell(told) {
    this.#link.subscriptions.hear(told);
    switch (told.type) {
      case "event":
        this.#deliver({ log: told.log, epoch: told.epoch, sequence: told.sequence, event: told.event });
        break;
      case "ephemeral":
        return this.#listeners.tell(told.kind, signalOf(told));
      case "connect":
        return this.#setStatus("connecting");
      case "opened":
        this.#ready = told.ready;
        this.userId = told.ready.user.user_id;
        this.#setStatus("online");
        this.#listeners.tell("ready", told.ready);
        return this.#appear();
      case "draining":
        return this.#setStatus("draining", "the server restarts", told.afterMs);
      case "interrupted":
        this.#ready = null;
        return this.#setStatus("waiting", told.reason, told.retryMs);
      case "ended":
        this.#ready = null;
        this.#link.reads.end(new ConnectionEnded(told.code, told.reason));
        if (told.code === SESSION_ENDED) this.#session.forget();
        return this.#setStatus("ended", told.reason);
      default:
        this.#listeners.tell(told.type, told); // followed, gone, refused, lagging, live
    }
  }

  /** Set the chosen presence again: the server keeps it only for a connection. */
  #appear() {
    if (this.#presence === null) return;
    const { signal } = this.#link.leaving;
    this.setPresence(this.#presence).catch((failure) => {
      if (this.#presence === null) this.#failed(failure, signal); // refused; else the next connection tries again
    });
  }

  /** @param {Status["state"]} state */
  #setStatus(state, reason = "", /** @type {number | null} */ retryMs = null) {
    this.#status = { state, reason, retryMs };
    this.#listeners.tell("status", this.#status);
  }

  /** @param {LogEvent} event */
  #deliver(event) {
    this.#listeners.tell(event.event.event_type, event);
    this.#listeners.tell("event", event);
  }

  // --- logs ----------------------------------------------------------------------------------------------

  /**
   * Follow a log: after the sequence `after` (of `epoch`), else after the stored position, else with its newest `tail` events, else
   * from now on. Listeners get its events once and in order, across connections; `gone` ends it. A log that is followed already
   * continues, or moves to the given beginning.
   * @param {string} log `channel:<id>`, `guild:<id>` or `user:<own id>`
   * @param {Beginning} [beginning]
   */
  subscribe(log, beginning = {}) {
    this.#link.subscriptions.add(log, beginning);
  }

  /** Return false while a log waits for the server's answer to `subscribe`. @param {string} log */
  isFollowed(log) {
    return !this.#link.subscriptions.isAwaited(log);
  }

  /** Stop following a log. Safe to repeat. @param {string} log */
  unsubscribe(log) {
    this.#link.subscriptions.remove(log);
    this.#everything?.unfollowed(log);
  }

  /**
   * Iterate over the events of a log, beginning as `subscribe` does. If the loop falls behind, the backlog stays on the server.
   * Leaving the loop ends the subscription. Throws LogGone (`restarted`: read the log again), ApiError if the user may not follow
   * the log, and ConnectionEnded; ends when this client is closed.
   * @param {string} log
   * @param {Beginning} [beginning]
   * @returns {AsyncGenerator<LogEvent, void, void>}
   */
  events(log, beginning = {}) {
    return this.#link.subscriptions.events(log, beginning);
  }

  /**
   * Follow all logs that the user may read, now and later: their own, and those of their guilds and channels. Logs with a stored
   * position continue there, others begin now, and new channels at their beginning. Listeners to `guild` get each guild with its
   * channels, including guilds joined later, and again when a guild's log restarts. `refused` with `limit_reached` reports each log
   * beyond a socket's 1,000. Resolves with the guilds when all is followed; rejects with ConnectionEnded, or ApiError if a list is
   * refused.
   */
  async followAll() {
    const ready = await this.connect();
    const { signal } = this.#link.leaving;
    this.#everything ??= new Everything({
      client: this,
      tell: (guild) => this.#listeners.tell("guild", guild),
      refuse: (log, message) => this.#told({ type: "refused", log, code: "limit_reached", message }),
      failed: (failure) => this.#failed(failure, signal),
      subscriptions: this.#link.subscriptions,
      random: this.#random,
      closed: signal,
    });
    const everything = this.#everything;
    try {
      return await everything.begin(ready);
    } catch (failure) {
      if (this.#everything === everything) this.#everything = null;
      throw failure;
    }
  }

  // --- commands ------------------------------------------------------------------------------------------

  /**
   * Send a command over the gateway; retry until it is answered. All attempts have the same key, so it is carried out once.
   * @override
   * @param {import("./commands.js").Command} command
   * @returns {Promise<any>}
   */
  async command(command) {
    if (!this.isLoggedIn) throw new OpenGuildError("log in first");
    this.#link.gateway.start();
    if (command.type === "read") {
      const sequence = /** @type {number | undefined} */ (command["sequence"]);
      return await this.#link.reads.mark(command.channel_id, sequence, this.#retryMs);
    }
    return await sendUntilAnswered(this.#link.gateway, command, this.#retryMs, this.#random, this.#link.leaving.signal);
  }

  /** Set the user's presence. It lasts as long as the connection; the client sets it again on the next one. @param {import("./types.js").PresenceStatus} status */
  async setPresence(status) {
    this.#presence = status;
    try {
      await this.request("PUT", "/users/@me/presence", { body: { status }, repeatable: true });
    } catch (failure) {
      const isRefused = failure instanceof ApiError && failure.status !== 401 && !isTemporary(failure.status);
      if (isRefused && this.#presence === status) this.#presence = null;
      throw failure;
    }
  }
}
