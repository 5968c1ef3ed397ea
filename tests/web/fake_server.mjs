// An in-memory server for cases that a real one cannot be made to produce: logs, guilds, sockets, and held requests.
import { Client } from "../../docs/web/openguild.js";

/** Return the `number`th id. */
export const idOf = (number) => `0198c0de-0000-4000-8000-${String(number).padStart(12, "0")}`;
export const ME = idOf(1);
/** Return a server's response. */
export function json(status, body, headers = {}) {
  return new Response(body === undefined ? null : JSON.stringify(body), { status, headers: { "content-type": "application/json", ...headers } });
}

export class FakeServer {
  /** @type {Map<string, {epoch: number, events: object[]}>} */
  logs = new Map([[`user:${ME}`, { epoch: 1, events: [] }]]);
  /** @type {Map<string, {guild_id: string, name: string, channels: string[]}>} */
  guilds = new Map();
  /** @type {{channel_id: string, guild_id: string}[]} where a role is held without the guild */
  channelsByRole = [];
  sockets = new Set();
  /** Requests as `GET /guilds`, in order. */
  requests = [];
  /** The types of the received frames, in order. */
  frames = [];
  /** @type {Map<string, {arrived: () => void, go: Promise<void>}>} */
  #held = new Map();
  /** @type {Map<string, (body: any) => Response>} */
  answers = new Map();
  /** The frame that greets a socket. */
  hello = { type: "hello", heartbeat_ms: 25_000, limits: { logs: 1_000, frame_bytes: 65_536 } };
  #pending = 0;

  /** Return a logged-in client. */
  client(t, options = {}) {
    const session = { access_token: "t", refresh_token: "r" };
    const stored = { url: "http://localhost", device_id: "d", session, positions: options.positions ?? {} };
    const client = Client.fromJSON(stored, { WebSocket: this.WebSocket, fetch: this.fetch, random: () => 0, ...options });
    t.after(() => client.close());
    return client;
  }

  // --- what happens ----------------------------------------------------------------------------------------

  /** @param {string} log @param {string} type @param {object} [content] */
  append(log, type, content = {}) {
    this.logs.get(log).events.push({ event_type: type, content, origin_ts: 0 });
    for (const socket of this.sockets) socket.catchUp(log);
  }

  /** Add a guild with the user as a member, without any event. @param {number} number @param {number[]} channels */
  addGuild(number, channels = []) {
    const guildId = idOf(number);
    this.guilds.set(guildId, { guild_id: guildId, name: `guild ${number}`, channels: [] });
    this.logs.set(`guild:${guildId}`, { epoch: 1, events: [{ event_type: "guild.created", content: {}, origin_ts: 0 }] });
    for (const channel of channels) this.addChannel(guildId, channel);
    return guildId;
  }

  /** @param {string} guildId @param {number} number */
  addChannel(guildId, number) {
    const channelId = idOf(number);
    if (!this.logs.has(`channel:${channelId}`)) this.logs.set(`channel:${channelId}`, { epoch: 1, events: [] });
    this.guilds.get(guildId).channels.push(channelId);
    this.append(`guild:${guildId}`, "channel.created", { channel_id: channelId, name: `channel ${number}` });
    return channelId;
  }

  /** @param {string} log @param {string} code */
  end(log, code = "access_lost") {
    this.logs.delete(log);
    this.guilds.delete(log.replace("guild:", ""));
    this.#tellGone(log, code);
  }

  /** Restart a log in a new epoch, without its events, and without reporting what `unseen` does meanwhile. */
  restart(log, unseen = () => {}) {
    const [first] = this.sockets;
    const followed = first?.followed;
    if (first) first.followed = new Map();
    this.logs.set(log, { epoch: this.logs.get(log).epoch + 1, events: [] });
    unseen();
    if (first) first.followed = followed;
    this.#tellGone(log, "restarted");
  }

  #tellGone(log, code) {
    for (const socket of this.sockets) if (socket.followed.delete(log)) socket.say({ type: "gone", log, code });
  }

  /** Hold the next request of this name: `arrived` resolves when it arrives, `release` lets it continue. */
  hold(name) {
    let arrived, release;
    const promise = new Promise((resolve) => (arrived = resolve));
    this.#held.set(name, { arrived, go: new Promise((resolve) => (release = resolve)) });
    return { arrived: promise, release };
  }

  /** Wait until nothing is in flight in either direction. */
  async settled() {
    for (let quiet = 0; quiet < 3; quiet += 1) {
      await new Promise((resolve) => setImmediate(resolve));
      if (this.#pending > 0) quiet = -1;
    }
  }

  #later(call) {
    this.#pending += 1;
    setImmediate(() => {
      this.#pending -= 1;
      call();
    });
  }

  // --- requests ----------------------------------------------------------------------------------------------

  fetch = async (url, { method, body, signal }) => {
    const path = new URL(url).pathname.replace("/client/v1", "");
    const name = `${method} ${path}`;
    this.requests.push(name);
    const held = this.#held.get(name);
    this.#held.delete(name);
    held?.arrived();
    await held?.go;
    signal.throwIfAborted();
    const made = this.answers.get(name);
    if (made !== undefined) return made(body === undefined ? undefined : JSON.parse(body));
    if (path === "/users/me") return json(200, { user_id: ME, guilds: [...this.guilds.values()], channels: this.channelsByRole });
    const guild = this.guilds.get(path.split("/")[2]);
    if (guild === undefined) return json(404, { error: "not_found", message: "there is none" });
    if (!path.endsWith("/channels")) return json(200, { guild_id: guild.guild_id, name: guild.name });
    const head = String(this.logs.get(`guild:${guild.guild_id}`).events.length);
    return json(200, guild.channels.map((id) => ({ channel_id: id })), { "x-openguild-head": head });
  };

  // --- sockets -------------------------------------------------------------------------------------------------

  /** The class of its sockets. */
  get WebSocket() {
    const server = this;
    return class {
      readyState = 0;
      listeners = {};
      /** @type {Map<string, number>} log -> the last sequence that was sent */
      followed = new Map();

      constructor() {
        server.sockets.add(this);
        server.#later(() => {
          this.readyState = 1;
          this.tell("open", {});
          this.say(server.hello);
        });
      }
      addEventListener(kind, listener) {
        (this.listeners[kind] ??= []).push(listener);
      }
      tell(kind, event) {
        for (const listener of this.listeners[kind] ?? []) listener(event);
      }
      say(frame) {
        this.tell("message", { data: JSON.stringify(frame) });
      }
      send(message) {
        server.#later(() => this.take(JSON.parse(message)));
      }
      close() {
        server.sockets.delete(this);
      }
      /** Handle a frame as a server does. */
      end(code) {
        this.close();
        this.tell("close", { code, reason: "" });
      }
      take({ type, ref, logs = [] }) {
        server.frames.push(type);
        if (type === "auth") this.authenticate(ref);
        if (type === "unsub") for (const log of logs) this.followed.delete(log);
        if (type === "sub") for (const line of logs) this.follow(ref, line);
      }
      authenticate(ref) {
        if (ref !== undefined) return this.say({ type: "ok", ref });
        const guilds = [...server.guilds.values()].map(({ guild_id, name }) => ({ guild_id, name }));
        const logs = [`user:${ME}`, ...guilds.map((guild) => `guild:${guild.guild_id}`)];
        const heads = logs.map((log) => ({ log, epoch: server.logs.get(log).epoch, head: server.logs.get(log).events.length }));
        this.say({ type: "ready", user: { user_id: ME, username: "alice" }, session: {}, guilds, heads });
      }
      follow(ref, { log, epoch, after }) {
        const known = server.logs.get(log);
        const refuse = (code) => this.say({ type: "err", ref, log, code, message: code });
        if (known === undefined) return refuse("not_found");
        if (!this.followed.has(log) && this.followed.size >= 1_000) return refuse("limit_reached");
        const head = known.events.length;
        const recovered = after === undefined || (after <= head && (epoch ?? known.epoch) === known.epoch);
        const at = recovered ? after ?? head : head;
        this.followed.set(log, at);
        this.say({ type: "sub_ok", ref, logs: [{ log, epoch: known.epoch, after: at, head, recovered }] });
        this.catchUp(log);
      }
      catchUp(log) {
        const { epoch, events } = server.logs.get(log);
        for (let at = this.followed.get(log) ?? Infinity; at < events.length; ) {
          this.followed.set(log, (at += 1));
          this.say({ type: "ev", log, epoch, seq: at, event: events[at - 1] });
          if (!this.followed.has(log)) return; // it was unfollowed during the event
        }
      }
    };
  }
}
