/** Follows all logs that a user may read, now and later (PROTOCOL 15.9.4). */

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

/** A guild with its channels, in the state that its log had when listeners got it; later events of the log change them.
 * @typedef {Guild & {channels: Channel[]}} FollowedGuild */

/**
 * A guild whose log is followed. Its channels are listed when the log has reached the head it had at the subscription. The list is
 * used when the log has reached the head that the list names, so each channel is in the list or in a later event.
 */
class GuildLog {
  /** @type {FollowedGuild | null} as the listeners last got it */
  followed = null;
  /** Counts the restarts of the log; a list that was requested before the last one is ignored. */
  round = 0;
  /** The last sequence of its log. */
  at = -1;
  /** @type {number | null} list the channels when the log has reached this sequence */
  levelAt = null;
  /** @type {{head: number, channels: Channel[]} | null} a list that is not used yet */
  list = null;
  /** The last sequence that changed its channels. */
  changedAt = -1;
  /** @type {string | null} its name, if an event of the log has changed it */
  name = null;
  hasLeft = false;
  /** Whether the user has joined it again, and `gone` may still come for the earlier membership. */
  hasRejoined = false;

  /** @param {Guild | null} guild null: not read yet */
  constructor(guild) {
    this.guild = guild;
  }

  /** Record from where the log is followed now. @param {SubbedLog} line */
  begin({ head, recovered }) {
    if (!recovered) this.guild = this.name = null;
    if (!recovered || this.round === 0) Object.assign(this, { round: this.round + 1, levelAt: head, list: null, changedAt: -1 });
  }

  /** Record that the user has left the guild. */
  leave() {
    Object.assign(this, { hasLeft: true, hasRejoined: false });
  }

  /** Record that the user has joined it again: list its channels and tell the listeners again. */
  rejoin() {
    Object.assign(this, { hasLeft: false, hasRejoined: true, followed: null, guild: null, name: null });
    if (this.round === 0) return; // its channels are listed once it is followed
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
 * @property {(log: string, message: string) => void} refuse report a log beyond the bound of a socket
 * @property {(failure: unknown) => void} failed
 * @property {import("./subscriptions.js").Subscriptions} subscriptions all of the client, not only those made here
 * @property {() => number} random
 * @property {AbortSignal} closed
 */

/** Follows everything. Call `begin`, then for each event of the client `prepare` before its listeners and `hear` after them. */
export class Everything {
  #parts;
  /** The user's own log. */
  #own = "";
  /** @type {number | null} `begin` waits for the guilds in the user's own log up to this sequence; null: not known yet */
  #ownHead = null;
  /** @type {Map<string, GuildLog>} by log */
  #guilds = new Map();
  /** @type {Set<string>} logs of channels that are followed, or were refused beyond the bound */
  #channels = new Set();
  /** @type {Set<string>} what `begin` waits for: logs, and `me`, the list of what the user may read */
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
   * Begin, on the first call. Resolves with the guilds when all logs are followed; rejects with ConnectionEnded, or ApiError if a
   * list is refused.
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

  /** Follow logs with a stored place that no list named. The server refuses those that have ended, which drops their places. */
  #followKept() {
    for (const log of this.#parts.subscriptions.kept()) {
      if (!this.#channels.has(log) && !this.#guilds.has(log)) this.#subscribe(log, {});
    }
  }

  // --- events of the client --------------------------------------------------------------------------------

  /**
   * Follow a channel that an event names, so that positions which a listener stores at the event include it.
   * @param {MachineEvent} told
   */
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
        if (told.code === "deleted") this.#guilds.delete(told.log); // even if the user has joined it again
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

  /** Forget a log that is not followed any more; join again if the user has. @param {string} log */
  #lost(log, isBeyondBound = false) {
    const guild = this.#guilds.get(log);
    this.#guilds.delete(log);
    if (!isBeyondBound) this.#channels.delete(log);
    if (guild?.hasRejoined) this.#join(log.slice("guild:".length));
    else this.#answered(log);
  }

  /** Forget a log that the caller has unsubscribed from. @param {string} log */
  unfollowed(log) {
    this.#guilds.delete(log);
    this.#answered(log);
  }

  /** @param {string} log */
  #answered(log) {
    if (this.#awaited.delete(log) && this.#awaited.size === 0) this.#settle?.resolve();
    if (this.#awaited.size === 0) this.#settle = null;
  }

  // --- subscriptions ---------------------------------------------------------------------------------------

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

  /**
   * Subscribe to a log so that the server reports its head, even if it is followed already.
   * @param {string} log
   * @param {Beginning} beginning
   */
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

  /** Follow what missed events of the user's own log named: guilds, and channels in which they have a role without the guild. */
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
      if (guild.changedAt > list.head) this.#run(() => this.#list(log, guild)); // the list is stale already
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
    if (answer === null) return this.#lost(log); // the gateway reports its end
    guild.guild = answer.read;
    guild.list = { head: answer.head, channels: answer.items };
    this.#cameTo(log, guild, guild.at);
  }

  /** @param {string} log @param {GuildLog} guild @param {Channel[]} channels */
  #use(log, guild, channels) {
    const beginning = guild.followed === null ? {} : { after: 0 }; // a channel that the last list lacked is new
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
   * Repeat a request until it succeeds and return its answer; null: `not_found`, or the answer is not wanted any more.
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
      else if (this.#parts.client.isLoggedIn) this.#parts.failed(failure); // else the gateway reports the end of the session
    });
  }
}
