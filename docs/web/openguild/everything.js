/** Follows all logs that a user may read, and those that they may read later (PROTOCOL 15.9.4). */

import { ApiError } from "./errors.js";

/** @typedef {import("./client.js").Client} Client */
/** @typedef {import("./types.js").Guild} Guild */
/** @typedef {import("./types.js").Channel} Channel */

/** A guild with its channels, as its log has them where it is told: what comes behind changes them.
 * @typedef {Guild & {channels: Channel[]}} FollowedGuild */

export class Everything {
  #client;
  #tell;
  #failed;
  /** @type {Map<string, number>} guild log -> the sequence that was told last */
  #told = new Map();
  /** @type {Map<string, number>} guild log -> its head when it was followed */
  #heads = new Map();
  /** @type {Map<string, {isMet: () => boolean, go: () => void}>} guild log -> what waits until it has come to a place */
  #waits = new Map();
  /** @type {Set<string>} channels that are followed */
  #followed = new Set();
  /** @type {Map<string, () => void>} log -> whoever waits until it is answered for */
  #awaited = new Map();

  /** @param {Client} client @param {(guild: FollowedGuild) => void} tell @param {(failure: unknown) => void} failed */
  constructor(client, tell, failed) {
    this.#client = client;
    this.#tell = tell;
    this.#failed = failed;
  }

  /**
   * Begin. Each guild is told when its channels are followed; return those of the beginning.
   * @param {import("./types.js").Ready} ready
   */
  async begin({ user, guilds, heads }) {
    const client = this.#client;
    client.on("channel.created", ({ event }) => this.#follow(event.content["channel_id"], 0));
    client.on("guild.joined", ({ event }) => {
      const guildId = event.content["guild_id"];
      client.subscribe(`guild:${guildId}`);
      this.#join(guildId).catch((failure) => this.#failed(failure)); // the guild may be gone again
    });
    /** @param {{log: string}} told */
    const gone = ({ log }) => {
      this.#followed.delete(log.replace(/^channel:/, ""));
      this.#awaited.get(log)?.();
      this.#heads.set(log, 0);
      this.#cameTo(log, Infinity); // nothing more comes of it
      this.#told.delete(log);
      this.#heads.delete(log);
    };
    client.on("gone", gone);
    client.on("refused", gone);
    client.on("followed", ({ log, after, head }) => {
      this.#awaited.get(log)?.();
      if (log.startsWith("guild:")) this.#heads.set(log, head);
      this.#cameTo(log, after);
    });
    client.on("status", ({ state }) => {
      if (state === "ended") for (const go of [...this.#awaited.values(), ...[...this.#waits.values()].map((wait) => wait.go)]) go();
    });
    client.on("event", ({ log, sequence }) => this.#cameTo(log, sequence)); // after what listens to the kind of the event
    const places = new Map(heads.map(({ log, epoch, head }) => [log, { epoch, after: head }]));
    const kept = client.toJSON().positions;
    /** @param {string} log */
    const subscribe = (log) => client.subscribe(log, log in kept ? {} : (places.get(log) ?? {}));
    subscribe(`user:${user.user_id}`);
    for (const { guild_id: guildId } of guilds) subscribe(`guild:${guildId}`);
    /** @param {unknown} refusal */
    const ifGone = (refusal) => {
      if (refusal instanceof ApiError && refusal.code === "not_found") return []; // meanwhile
      throw refusal;
    };
    const followed = (await Promise.all(guilds.map((guild) => this.#read(guild).catch(ifGone)))).flat();
    const channels = followed.flatMap((guild) => guild.channels.map(({ channel_id: id }) => `channel:${id}`));
    await Promise.all(channels.map((log) => client.isFollowed(log) || new Promise((resolve) => this.#awaited.set(log, () => resolve(this.#awaited.delete(log))))));
    return followed;
  }

  /** @param {string} guildId */
  async #join(guildId) {
    await this.#read(await this.#client.guild(guildId));
  }

  /**
   * List the channels when the log has come to the head that it had, and use the list when it has come to the place that this names: so
   * a channel is in the list, or is told of behind it.
   * @param {Guild} guild
   * @returns {Promise<FollowedGuild>}
   */
  async #read(guild) {
    const log = `guild:${guild.guild_id}`;
    const told = () => this.#told.get(log) ?? -1;
    await this.#until(log, () => told() >= (this.#heads.get(log) ?? Infinity), () => {});
    const { items, head } = await this.#client.listAt(`/guilds/${guild.guild_id}/channels`);
    const followed = { ...guild, channels: items };
    await this.#until(log, () => told() >= head, () => {
      for (const channel of items) this.#follow(channel.channel_id);
      this.#tell(followed);
    });
    return followed;
  }

  /** Act at the event that meets a condition, or when the log is gone. @param {string} log @param {() => boolean} isMet @param {() => void} act */
  #until(log, isMet, act) {
    return new Promise((resolve) => {
      const go = () => {
        this.#waits.delete(log);
        act();
        resolve(undefined);
      };
      if (isMet()) go();
      else this.#waits.set(log, { isMet, go });
    });
  }

  /** @param {string} log @param {number} sequence */
  #cameTo(log, sequence) {
    if (!log.startsWith("guild:")) return;
    this.#told.set(log, sequence);
    const wait = this.#waits.get(log);
    if (wait?.isMet()) wait.go();
  }

  /** @param {string} channelId @param {number} [after] */
  #follow(channelId, after) {
    if (this.#followed.has(channelId)) return;
    this.#followed.add(channelId);
    this.#client.subscribe(`channel:${channelId}`, after === undefined ? {} : { after });
  }
}
