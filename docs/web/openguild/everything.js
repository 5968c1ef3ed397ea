/** Follows all logs that a user may read, and those that they may read later (PROTOCOL 15.9.4). */

import { ApiError, ConnectionEnded, isTemporary, OpenGuildError, OutcomeUnknown } from "./errors.js";
import { Backoff, isLogOver } from "./policy.js";
import { pause } from "./retries.js";

/** @typedef {import("./client.js").Client} Client */
/** @typedef {import("./types.js").Guild} Guild */
/** @typedef {import("./types.js").Channel} Channel */
/** @typedef {import("./types.js").LogEvent} LogEvent */
/** @typedef {import("./types.js").Beginning} Beginning */
/** @typedef {import("./frames.js").SubbedLog} SubbedLog */
/** @typedef {import("./phases.js").MachineEvent} MachineEvent */

/** A guild with its channels, as its log has them where it is told: what comes behind changes them.
 * @typedef {Guild & {channels: Channel[]}} FollowedGuild */

/**
 * A guild whose log is followed. Its channels are listed when the log has come to the head that it had, and the list is used when it
 * has come to the place that this names: so a channel is in the list, or is told of behind it.
 */
class GuildLog {
  /** @type {FollowedGuild | null} as it was told last */
  followed = null;
  /** Counts the times that the log began anew: a list for an earlier one is ignored. */
  round = 0;
  /** The last sequence of its log. */
  at = -1;
  /** @type {number | null} its channels are to be listed when the log has come here */
  levelAt = null;
  /** @type {{head: number, channels: Channel[]} | null} a list that is not used yet */
  list = null;
  /** The last sequence that changed its channels. */
  changedAt = -1;
  /** @type {string | null} its name, where the log has told it */
  name = null;
  hasLeft = false;
  /** Whether the user has joined it again, and `gone` may still come for the membership before. */
  hasRejoined = false;

  /** @param {Guild | null} guild null: to be read */
  constructor(guild) {
    this.guild = guild;
  }

  /** The log is followed from another place. @param {SubbedLog} line */
  begin({ head, recovered }) {
    if (!recovered) this.guild = this.name = null;
    if (!recovered || this.round === 0) Object.assign(this, { round: this.round + 1, levelAt: head, list: null, changedAt: -1 });
  }

  /** The user has left the guild. */
  leave() {
    Object.assign(this, { hasLeft: true, hasRejoined: false });
  }

  /** The user has joined it again: it is to be listed and told again. */
  rejoin() {
    Object.assign(this, { hasLeft: false, hasRejoined: true, followed: null, guild: null, name: null });
    if (this.round === 0) return; // it is listed when it is followed
    Object.assign(this, { round: this.round + 1, levelAt: this.levelAt ?? this.at, list: null });
  }

  /** @param {LogEvent} told */
  take({ sequence, event }) {
    if (event.event_type === "guild.updated") this.name = event.content["name"];
    if (event.event_type.startsWith("channel.")) this.changedAt = sequence;
  }
}

/**
 * @typedef {object} EverythingParts
 * @property {Client} client
 * @property {(guild: FollowedGuild) => void} tell
 * @property {(log: string, message: string) => void} refuse a log is beyond the bound
 * @property {(failure: unknown) => void} failed
 * @property {import("./subscriptions.js").Subscriptions} subscriptions for whomever
 * @property {() => number} random
 * @property {AbortSignal} closed
 */

/** Call `begin`, and with all that the client tells `prepare`, before its listeners, and `hear`, after them. */
export class Everything {
  #parts;
  /** The user's own log. */
  #own = "";
  /** @type {number | null} guilds that are told up to here are part of the beginning; null: not known yet */
  #ownHead = null;
  /** @type {Map<string, GuildLog>} by log */
  #guilds = new Map();
  /** @type {Set<string>} logs of channels that are followed, or beyond the bound */
  #channels = new Set();
  /** @type {Set<string>} what `begin` waits for: logs, and the list of what one may read */
  #awaited = new Set();
  /** @type {Promise<void> | null} */
  #beginning = null;
  /** @type {{resolve: () => void, reject: (failure: unknown) => void} | null} until the beginning is over */
  #settle = null;

  /** @param {EverythingParts} parts */
  constructor(parts) {
    this.#parts = parts;
  }

  /**
   * Begin, once. Resolves when all is followed; the guilds. Rejects with ConnectionEnded, and ApiError where a list is refused.
   * @param {import("./types.js").Ready} ready
   * @returns {Promise<FollowedGuild[]>}
   */
  async begin(ready) {
    this.#beginning ??= new Promise((resolve, reject) => {
      this.#settle = { resolve: () => resolve(undefined), reject };
      this.#followReady(ready);
    }).then(() => this.#followKept());
    await this.#beginning;
    return [...this.#guilds.values()].flatMap(({ followed }) => followed ?? []);
  }

  /** @param {import("./types.js").Ready} ready */
  #followReady({ user, guilds, heads }) {
    const places = new Map(heads.map(({ log, epoch, head }) => [log, { epoch, after: head }]));
    const kept = this.#parts.client.toJSON().positions;
    /** @param {string} log */
    const beginning = (log) => (log in kept ? {} : (places.get(log) ?? {}));
    this.#own = `user:${user.user_id}`;
    this.#awaited.add(this.#own);
    this.#subscribeAnew(this.#own, beginning(this.#own));
    for (const guild of guilds) this.#join(guild.guild_id, guild, beginning(`guild:${guild.guild_id}`));
    this.#run(() => this.#followMissed());
  }

  /** Logs with a stored place that were in no list: the server refuses those that have ended, and no later join goes on there. */
  #followKept() {
    for (const log of this.#parts.subscriptions.kept()) {
      if (!this.#channels.has(log) && !this.#guilds.has(log)) this.#subscribe(log, {});
    }
  }

  // --- what the client tells -------------------------------------------------------------------------------

  /** Follow a channel that an event tells of: positions that a listener stores at the event have it. @param {MachineEvent} told */
  prepare(told) {
    if (told.type !== "event") return;
    const { event_type: type, content } = told.event;
    if (type === "channel.created" && this.#guilds.has(told.log)) this.#follow(content["channel_id"], { after: 0 });
    if (type === "channel.role_given" && told.log === this.#own) this.#follow(content["channel_id"], {});
  }

  /** @param {MachineEvent} told */
  hear(told) {
    switch (told.type) {
      case "followed":
        return this.#begun(told);
      case "event":
        return this.#take(told);
      case "gone":
        if (told.code === "deleted") this.#guilds.delete(told.log); // also where it was joined again
        return isLogOver(told.code) ? this.#lost(told.log) : undefined;
      case "refused":
        return this.#lost(told.log, told.code === "limit_reached");
      case "ended":
        this.#settle?.reject(new ConnectionEnded(told.code, told.reason));
    }
  }

  /** @param {SubbedLog} line */
  #begun(line) {
    const { log, after, head, recovered } = line;
    const guild = this.#guilds.get(log);
    if (guild !== undefined) {
      guild.begin(line);
      this.#cameTo(log, guild, after);
    } else if (log === this.#own) {
      if (!recovered) this.#run(() => this.#followMissed());
      this.#ownHead = head;
      this.#ownCameTo(after);
    } else this.#answered(log);
  }

  /** @param {LogEvent} told */
  #take(told) {
    const { log, sequence, event } = told;
    const guild = this.#guilds.get(log);
    if (guild !== undefined) {
      guild.take(told);
      this.#cameTo(log, guild, sequence);
    } else if (log === this.#own) {
      this.#takeOwn(event);
      this.#ownCameTo(sequence);
    }
  }

  /** @param {import("./types.js").CanonicalEvent} event */
  #takeOwn({ event_type: type, content }) {
    const log = `guild:${content["guild_id"]}`;
    const guild = this.#guilds.get(log);
    if (type === "guild.left") guild?.leave();
    else if (type === "guild.joined" && guild?.hasLeft) {
      guild.rejoin();
      this.#cameTo(log, guild, guild.at);
    } else if (type === "guild.joined") this.#join(content["guild_id"]);
  }

  /** @param {number} sequence */
  #ownCameTo(sequence) {
    if (this.#ownHead !== null && sequence >= this.#ownHead) this.#answered(this.#own);
  }

  /** A log is not followed any more. @param {string} log */
  #lost(log, isBeyondBound = false) {
    const guild = this.#guilds.get(log);
    this.#guilds.delete(log);
    if (!isBeyondBound) this.#channels.delete(log);
    if (guild?.hasRejoined) this.#join(log.slice("guild:".length));
    else this.#answered(log);
  }

  /** The caller follows a log no longer. @param {string} log */
  unfollowed(log) {
    this.#guilds.delete(log);
    this.#answered(log);
  }

  /** @param {string} log */
  #answered(log) {
    if (this.#awaited.delete(log) && this.#awaited.size === 0) this.#settle?.resolve();
    if (this.#awaited.size === 0) this.#settle = null;
  }

  // --- what is followed ------------------------------------------------------------------------------------

  /** @param {string} guildId @param {Guild | null} [guild] @param {Beginning} [beginning] */
  #join(guildId, guild = null, beginning = {}) {
    const log = `guild:${guildId}`;
    if (this.#guilds.has(log)) return;
    this.#guilds.set(log, new GuildLog(guild));
    if (this.#settle !== null) this.#awaited.add(log);
    this.#subscribeAnew(log, beginning);
  }

  /** @param {string} channelId @param {Beginning} beginning */
  #follow(channelId, beginning) {
    const log = `channel:${channelId}`;
    if (this.#channels.has(log)) return;
    this.#channels.add(log);
    this.#subscribe(log, this.#parts.subscriptions.has(log) ? {} : beginning);
  }

  /** Follow a log so that its head is told, also where it is followed already. @param {string} log @param {Beginning} beginning */
  #subscribeAnew(log, beginning) {
    const place = this.#parts.subscriptions.placeOf(log);
    this.#subscribe(log, place === null ? beginning : { epoch: place.epoch, after: place.sequence });
  }

  /** @param {string} log @param {Beginning} beginning */
  #subscribe(log, beginning) {
    try {
      this.#parts.client.subscribe(log, beginning);
    } catch (failure) {
      if (!(failure instanceof OpenGuildError)) throw failure;
      this.#parts.refuse(log, failure.message);
    }
  }

  /** Follow what the user's own log would have told: guilds, and channels in which one has a role without the guild. */
  async #followMissed() {
    if (this.#settle !== null) this.#awaited.add("me");
    const me = await this.#ask(() => this.#parts.client.me(), () => true);
    const guilds = new Set(me?.guilds?.map((guild) => guild.guild_id));
    for (const guildId of guilds) this.#join(guildId);
    for (const channel of me?.channels ?? []) if (!guilds.has(channel.guild_id)) this.#follow(channel.channel_id, {});
    this.#answered("me");
  }

  // --- the channels of a guild -------------------------------------------------------------------------------

  /** @param {string} log @param {GuildLog} guild @param {number} sequence */
  #cameTo(log, guild, sequence) {
    guild.at = sequence;
    const { levelAt, list } = guild;
    if (levelAt !== null && sequence >= levelAt) {
      guild.levelAt = null;
      this.#run(() => this.#list(log, guild));
    } else if (list !== null && sequence >= list.head) {
      guild.list = null;
      if (guild.changedAt > list.head) this.#run(() => this.#list(log, guild)); // the log came first
      else this.#use(log, guild, list.channels);
    }
  }

  /** @param {string} log @param {GuildLog} guild */
  async #list(log, guild) {
    const { round } = guild;
    const { client } = this.#parts;
    const guildId = log.slice("guild:".length);
    const isWanted = () => this.#guilds.get(log) === guild && guild.round === round;
    const answer = await this.#ask(async () => {
      const read = guild.guild ?? (await client.guild(guildId));
      return { read, ...(await client.listAt(`/guilds/${guildId}/channels`)) };
    }, isWanted);
    if (!isWanted()) return;
    if (answer === null) return this.#lost(log); // its end is told
    guild.guild = answer.read;
    guild.list = { head: answer.head, channels: answer.items };
    this.#cameTo(log, guild, guild.at);
  }

  /** @param {string} log @param {GuildLog} guild @param {Channel[]} channels */
  #use(log, guild, channels) {
    const beginning = guild.followed === null ? {} : { after: 0 }; // a channel that was not there before is new
    for (const { channel_id: channelId } of channels) {
      this.#follow(channelId, beginning);
      const isLate = !this.#parts.client.isFollowed(`channel:${channelId}`);
      if (isLate && this.#awaited.has(log)) this.#awaited.add(`channel:${channelId}`);
    }
    const { name } = guild;
    guild.followed = { .../** @type {Guild} */ (guild.guild), ...(name === null ? {} : { name }), channels };
    this.#parts.tell(guild.followed);
    this.#answered(log);
  }

  // --- requests ------------------------------------------------------------------------------------------

  /**
   * Ask until there is an answer; null: there is none to have, or it is not wanted any more.
   * @template T
   * @param {() => Promise<T>} request
   * @param {() => boolean} isWanted
   * @returns {Promise<T | null>}
   */
  async #ask(request, isWanted) {
    const backoff = new Backoff(this.#parts.random);
    while (isWanted()) {
      try {
        return await request();
      } catch (failure) {
        if (failure instanceof ApiError && failure.code === "not_found") return null;
        if (!(failure instanceof OutcomeUnknown || (failure instanceof ApiError && isTemporary(failure.status)))) throw failure;
        await pause(backoff.nextDelay(), this.#parts.closed);
      }
    }
    return null;
  }

  /** @param {() => Promise<void>} work */
  #run(work) {
    work().catch((failure) => {
      if (this.#settle !== null) this.#settle.reject(failure);
      else if (this.#parts.client.isLoggedIn) this.#parts.failed(failure); // else the connection tells the end of the session
    });
  }
}
