/** The page's state: guilds, channels, members, unread counts, and the messages of the open channel. No DOM elements. */

import { ApiError } from "../openguild.js";
import { Beyond } from "./beyond.js";
import { GuildState, timedOutUntil } from "./guild.js";
import { History } from "./history.js";
import { Outbox } from "./outbox.js";
import { Typing } from "./typing.js";
import { Unread } from "./unread.js";

/** @typedef {import("../openguild.js").Client} Client */
/** @typedef {import("../openguild/types.js").Channel} Channel */
/** @typedef {import("../openguild/types.js").Guild} Guild */
/** @typedef {import("../openguild/types.js").Message} Message */
/** @typedef {import("../openguild/types.js").LogEvent} LogEvent */

/** @typedef {"guilds" | "channels" | "members" | "messages" | "typing" | "status"} Part */

const ARRIVAL_MS = 30_000; // how long to wait for a guild that was joined
const LATE = "The guild has not appeared within 30 seconds. It will appear in the list later.";
const MAX_TAKEN_BACK = 1_000; // redacted messages that are remembered
const FOLLOWED_AGAIN = new Set(["restarted", "unavailable"]); // codes of `gone` after which the client retries (PROTOCOL 15.3.7)
const MAY_NOT_READ = new Set(["not_found", "forbidden"]); // codes for guilds and channels that are gone or may not be read
const BEGAN_ANEW = "The server has restored this channel: its newest messages may be missing.";
const MODERATORS = ["owner", "admin", "moderator"];
const MAINTAINERS = [...MODERATORS, "maintainer"];

export class Chat {
  /** @type {Map<string, GuildState>} */
  guilds = new Map();
  guildId = "";
  channelId = "";
  me = { user_id: "", username: "" };
  /** @type {import("../openguild/types.js").PresenceStatus} the user's own presence */
  status = "online";
  /** @type {Map<(failure?: string) => void, string>} the function that ends a wait -> the guild that it waits for */
  #awaited = new Map();
  /** @type {Set<string>} the most recently redacted messages */
  #redacted = new Set();
  /** @type {Set<string>} guilds that had events before the `guild` event */
  #early = new Set();

  /**
   * @param {Client} client
   * @param {(part: Part) => void} changed
   * @param {(message: Message) => void} heard called for a new message of another user in the open channel
   * @param {(id: string) => void} forget removes a redacted message, a lost channel or a lost guild from view
   * @param {(failure: unknown) => void} failed
   */
  constructor(client, changed, heard, forget, failed) {
    this.client = client;
    this.changed = changed;
    this.heard = heard;
    this.forget = forget;
    this.failed = failed;
    this.beyond = new Beyond(client);
    this.typing = new Typing(() => changed("typing"));
    this.history = new History(client, () => this.me.user_id, () => this.outbox.settle());
    this.unread = new Unread(client, () => this.me.user_id, () => changed("channels"));
    this.outbox = new Outbox(client, (id) => id === this.channelId, (sequence) => this.history.has(sequence), () => changed("messages"));
    client.on("event", (event) => this.#apply(event));
    client.on("guild", ({ channels, ...guild }) => this.#add(guild, channels));
    client.on("status", ({ state }) => {
      if (state === "ended") for (const end of this.#awaited.keys()) end("The connection has ended before the guild appeared.");
      if (state !== "online") this.typing.clear();
      if (state === "online" && this.history.hasFailed) void this.#later(() => this.open(this.channelId));
      changed("status");
    });
    client.on("typing", ({ channelId, userId, preview }) => channelId === this.channelId && this.typing.begin(userId, preview));
    client.on("presence", ({ guildId, userId, status }) => {
      this.guilds.get(guildId)?.setPresence(userId, status);
      if (status === "offline") this.typing.end(userId);
      if (guildId === this.guildId) changed("members");
    });
    client.on("followed", ({ log, recovered, ...place }) => {
      const isOpen = log === `channel:${this.channelId}`;
      if (!recovered || (isOpen && !this.history.followed(place))) this.#restarted(log, recovered);
      const state = log.startsWith("guild:") ? this.guilds.get(log.slice(6)) : undefined;
      if (state?.isLoaded) void this.#later(() => this.#readPresence(state)); // changes were missed
    });
    client.on("gone", ({ log, code }) => FOLLOWED_AGAIN.has(code) || this.#gone(log));
    client.on("refused", ({ log, code }) => {
      if (code === "limit_reached") this.beyond.add(log);
      else if (MAY_NOT_READ.has(code)) this.#gone(log);
    });
  }

  /** Follow everything. */
  async start() {
    this.me = (await this.client.connect()).user;
    this.outbox.takeUp(this.me.user_id);
    await this.client.followAll();
    await this.#later(() => this.unread.ask());
    this.changed("guilds");
  }

  // --- for display ---------------------------------------------------------------------------------------

  get guild() {
    return this.guilds.get(this.guildId);
  }

  get channel() {
    return this.guild?.channels.get(this.channelId);
  }

  /** The guilds, the oldest first. */
  get sortedGuilds() {
    return [...this.guilds.values()].sort((a, b) => a.guild.created_at.localeCompare(b.guild.created_at));
  }

  /** The channels of the open guild, in display order (PROTOCOL 5.7.4). */
  get channels() {
    const channels = [...(this.guild?.channels.values() ?? [])];
    return channels.sort((a, b) => (a.position ?? 0) - (b.position ?? 0) || a.created_at.localeCompare(b.created_at));
  }

  /** When the user may write again in the open guild, in Unix milliseconds; 0 if they are not timed out. */
  get timedOutUntil() {
    return timedOutUntil(this.guild?.members.get(this.me.user_id));
  }

  /** The user's effective role in the open guild: `viewer` during a time-out. */
  get role() {
    const role = this.guild?.members.get(this.me.user_id)?.role ?? "guest";
    return this.timedOutUntil > 0 && role !== "guest" ? "viewer" : role;
  }

  get mayModerate() {
    return MODERATORS.includes(this.role);
  }

  get mayMaintain() {
    return MAINTAINERS.includes(this.role);
  }

  /** @param {{id: string, username?: string | null}} author */
  nameOf(author) {
    const member = this.guild?.members.get(author.id);
    return member?.display_name ?? member?.username ?? author.username ?? "somebody";
  }

  /** Return a stored text for display, with the names of mentioned users. @param {string | null | undefined} content */
  shownText(content) {
    return (content ?? "").replace(/<@([0-9a-f-]{36})>/g, (_, id) => `@${this.nameOf({ id })}`);
  }

  /** Return a written text as it is stored: `@name` of a member becomes a mention (PROTOCOL 6.11.1). @param {string} written */
  storedText(written) {
    const ids = new Map([...(this.guild?.members.values() ?? [])].map(({ user_id: id, username }) => [username.toLowerCase(), id]));
    return written.replace(/(^|\s)@([^\s@]+)/g, (whole, before, name) => {
      let end = name.length; // of the username; a pattern would take quadratic time
      while (end > 0 && ".,:;!?)".includes(name[end - 1])) end -= 1;
      const id = ids.get(name.slice(0, end).toLowerCase());
      return id === undefined ? whole : `${before}<@${id}>${name.slice(end)}`;
    });
  }

  /** @param {string} guildId */
  unreadOf(guildId) {
    return this.unread.sum(this.guilds.get(guildId)?.channels.keys() ?? []);
  }

  /**
   * Return whether a message in an answer may still be shown: it may be redacted or its channel gone by now.
   * @param {string} channelId
   * @param {string} eventId
   */
  mayShow(channelId, eventId) {
    return !this.#redacted.has(eventId) && [...this.guilds.values()].some(({ channels }) => channels.has(channelId));
  }

  // --- opening guilds and channels -----------------------------------------------------------------------

  /** @param {string} guildId */
  async openGuild(guildId) {
    this.guildId = guildId;
    this.channelId = "";
    this.history.close();
    this.changed("guilds");
    const first = this.channels[0];
    if (first !== undefined) await this.open(first.channel_id);
    else if (this.guild !== undefined) await this.#load(this.guild);
  }

  /** Open a guild that was just created or joined, as soon as it is known. Rejects after ARRIVAL_MS. @param {string} guildId */
  async arrived(guildId) {
    if (!this.guilds.has(guildId)) await new Promise((resolve, reject) => this.#awaitGuild(guildId, resolve, reject));
    await this.openGuild(guildId);
  }

  /** @param {string} guildId @param {(come: void) => void} resolve @param {(failure: Error) => void} reject */
  #awaitGuild(guildId, resolve, reject) {
    const timer = setTimeout(() => end(LATE), ARRIVAL_MS);
    /** @param {string} [failure] */
    const end = (failure) => {
      clearTimeout(timer);
      this.#awaited.delete(end);
      if (failure === undefined) resolve();
      else reject(new Error(failure));
    };
    this.#awaited.set(end, guildId);
  }

  /** @param {string} guildId @param {string} [failure] */
  #endWaiting(guildId, failure) {
    for (const [end, id] of this.#awaited) if (id === guildId) end(failure);
  }

  /** @param {GuildState} state */
  async #load(state) {
    if (await state.load()) this.changed(state.id === this.guildId ? "guilds" : "members");
  }

  /** Read the presence soon, once for many members who join: they may have been online before. @param {GuildState} state */
  #readPresenceSoon(state) {
    if (state.isAsking || !state.isLoaded) return;
    state.isAsking = true;
    setTimeout(() => {
      state.isAsking = false;
      void this.#later(() => this.#readPresence(state));
    }, 500);
  }

  /** @param {GuildState} state */
  async #readPresence(state) {
    await state.readPresence();
    this.changed("members");
  }

  /** Open a channel at its newest messages, or around one. @param {string} channelId @param {number} [around] a sequence */
  async open(channelId, around) {
    const guild = [...this.guilds.values()].find(({ channels }) => channels.has(channelId));
    if (guild === undefined) return;
    this.guildId = guild.guild.guild_id;
    void this.#later(() => this.#load(guild)); // names are drawn when they are known
    this.channelId = channelId;
    this.beyond.follow(channelId, [...this.guilds.values()].flatMap(({ channels }) => [...channels.keys()]));
    this.typing.clear();
    this.changed("guilds");
    if (await this.history.open(channelId, around)) this.markRead();
  }

  /** Restore the user's presence after the page was reloaded. @param {import("../openguild/types.js").PresenceStatus} status */
  appearAs(status) {
    this.status = status;
    this.client.setPresence(status).catch(() => {}); // the client sets it again when it is connected
  }

  /** Set the user's presence. @param {import("../openguild/types.js").PresenceStatus} status */
  async setStatus(status) {
    await this.client.setPresence(status);
    this.status = status;
    this.changed("members");
  }

  /** Mark the open channel as read, if its newest message is in view and the page is visible. */
  markRead() {
    const { isAtEnd, isNewest, messages } = this.history;
    const { channelId } = this;
    const { unread, latest } = this.unread.of(channelId);
    const isSeen = messages !== null && isNewest && isAtEnd && !document.hidden;
    if (!isSeen || unread === 0 || this.client.status.state === "ended") return;
    this.unread.read(channelId, latest);
    this.client.read(channelId, latest).catch(() => {}); // harmless: the next message marks the channel again
  }

  // --- events --------------------------------------------------------------------------------------------

  /** @param {LogEvent} told */
  #apply(told) {
    const [kind, of = ""] = told.log.split(":");
    if (kind === "channel") this.#applyToChannel(of, told);
    else if (kind === "guild") this.#applyToGuild(of, told);
    else this.#applyToMe(told);
  }

  /** @param {string} channelId @param {LogEvent} told */
  #applyToChannel(channelId, told) {
    const { event } = told;
    const isMine = event.sender === this.me.user_id;
    this.unread.count(channelId, told);
    if (event.event_type === "message.redacted") this.#redact(event.content["target"]);
    if (channelId !== this.channelId) return;
    if (event.event_type === "message") this.typing.end(event.sender);
    const isNew = this.history.apply(told);
    const last = this.history.messages?.at(-1);
    if (isNew && !isMine && last?.event_id === event.event_id && last.redacted_by === undefined) this.heard(last);
    this.markRead();
  }

  /** @param {string} eventId */
  #redact(eventId) {
    this.#redacted.add(eventId);
    if (this.#redacted.size > MAX_TAKEN_BACK) this.#redacted.delete([...this.#redacted][0] ?? "");
    this.forget(eventId);
  }

  /** @param {string} guildId @param {LogEvent} told */
  #applyToGuild(guildId, told) {
    const state = this.guilds.get(guildId);
    if (state === undefined) return void this.#early.add(guildId);
    state.apply(told);
    const { content, event_type: type } = told.event;
    if (type === "member.left" || type === "member.removed" || type === "member.timed_out") this.typing.end(content["user_id"]);
    if (type === "channel.deleted") this.#gone(`channel:${content["channel_id"]}`);
    if (type === "member.joined") this.#readPresenceSoon(state);
    this.changed("guilds");
    if (type === "channel.created" && guildId === this.guildId && this.channelId === "" && state.channels.size === 1) {
      void this.#later(() => this.open(content["channel_id"])); // the guild's first channel; among several the user chooses
    }
  }

  /** @param {LogEvent} told */
  #applyToMe({ event }) {
    const { content } = event;
    if (event.event_type === "guild.left") this.#gone(`guild:${content["guild_id"]}`);
    else if (event.event_type === "channel.read") this.unread.read(content["channel_id"], content["last_read_sequence"]);
  }

  /** @param {Guild} guild @param {Channel[]} channels */
  #add(guild, channels) {
    const known = this.guilds.get(guild.guild_id);
    const state = known ?? new GuildState(this.client, guild);
    if (known === undefined) for (const channel of channels) state.channels.set(channel.channel_id, channel);
    this.guilds.set(guild.guild_id, state);
    const mayBeOlder = this.#early.delete(guild.guild_id) || known !== undefined;
    this.#endWaiting(guild.guild_id);
    if (mayBeOlder) void this.#later(() => this.#readAgain(state));
    this.changed("guilds");
  }

  /** @param {string} log */
  #gone(log) {
    const [kind, of = ""] = log.split(":");
    const channelIds = kind === "channel" ? [of] : [...(this.guilds.get(of)?.channels.keys() ?? [])];
    this.guilds.delete(of);
    this.beyond.delete(log);
    this.#endWaiting(of, "The guild is gone again.");
    this.#early.delete(of);
    for (const { channels } of this.guilds.values()) channels.delete(of);
    for (const id of channelIds) {
      this.unread.forget(id);
      this.forget(id);
    }
    if (kind === "guild") this.forget(of); // bans
    if (this.guildId === of) this.guildId = this.channelId = "";
    if (this.channelId === of) this.channelId = "";
    if (this.channelId === "") this.history.close();
    this.changed("guilds");
  }

  /** Read the state of a log again. @param {string} log @param {boolean} recovered false: messages may be lost */
  #restarted(log, recovered) {
    const [kind, of = ""] = log.split(":");
    const state = this.guilds.get(of);
    if (state !== undefined) void this.#later(() => this.#readAgain(state));
    if (of === this.channelId) void this.#later(() => this.#openAgain(of, recovered));
    if (kind !== "channel") return;
    this.outbox.restarted(of);
    void this.#later(() => this.unread.askAgain(of));
  }

  /** @param {string} channelId @param {boolean} recovered */
  async #openAgain(channelId, recovered) {
    await this.open(channelId);
    if (!recovered && channelId === this.channelId) this.failed(new Error(BEGAN_ANEW)); // messages that were shown may be gone
  }

  /** @param {GuildState} state */
  async #readAgain(state) {
    await state.readAgain();
    if (this.guilds.get(state.id) !== state) return; // it was left or deleted meanwhile
    if (state.id === this.guildId && this.channelId !== "" && this.channel === undefined) this.#gone(`channel:${this.channelId}`);
    this.changed("guilds");
    for (const id of state.channels.keys()) {
      if (!this.beyond.has(id)) this.client.subscribe(`channel:${id}`); // has no effect for a channel that is followed
    }
  }

  /**
   * Do work that no caller waits for. MAY_NOT_READ errors are ignored, because the log reports the same.
   * @param {() => Promise<unknown>} work
   */
  async #later(work) {
    try {
      await work();
    } catch (failure) {
      if (!(failure instanceof ApiError && MAY_NOT_READ.has(failure.code))) this.failed(failure);
    }
  }
}
