/** The page's state of one guild: its channels, its members, and their presence. No DOM elements. */

import { ApiError } from "../openguild.js";
import { Changes } from "./changes.js";

/** @typedef {import("../openguild.js").Client} Client */
/** @typedef {import("../openguild/types.js").Channel} Channel */
/** @typedef {import("../openguild/types.js").Guild} Guild */
/** @typedef {import("../openguild/types.js").LogEvent} LogEvent */
/** @typedef {import("../openguild/types.js").Member} Member */

/**
 * Return when a member may write again, in Unix milliseconds; 0 if they are not timed out (PROTOCOL 5.9).
 * @param {Member | undefined} member
 */
export function timedOutUntil(member) {
  const until = member !== undefined && member.role !== "owner" ? Date.parse(member.timed_out_until ?? "") : 0;
  return until > Date.now() ? until : 0;
}

export class GuildState {
  /** @type {Map<string, Channel>} */
  channels = new Map();
  /** @type {Map<string, Member>} */
  members = new Map();
  /** @type {Map<string, string>} user -> status */
  presence = new Map();
  isLoaded = false;
  isAsking = false;
  #changes = new Changes();

  /** @param {Client} client @param {Guild} guild */
  constructor(client, guild) {
    this.client = client;
    this.guild = guild;
  }

  get id() {
    return this.guild.guild_id;
  }

  /** Read the members, unless they have been read. Return whether they were read now. */
  async load() {
    if (this.isLoaded) return false;
    this.isLoaded = true;
    try {
      const reading = this.#changes.read(() => this.client.members(this.id), (members) => this.#setMembers(members));
      await Promise.all([reading, this.readPresence()]);
    } catch (failure) {
      this.isLoaded = false; // read them when the guild is opened again
      throw failure;
    }
    return true;
  }

  /** Read the guild, its channels and its members again: its log has restarted. */
  async readAgain() {
    const { client, id, isLoaded } = this;
    const read = () => Promise.all([client.guild(id), client.channels(id), isLoaded ? client.members(id) : null]);
    await this.#changes.read(read, ([guild, channels, members]) => {
      this.guild = guild;
      this.channels = new Map(channels.map((channel) => [channel.channel_id, channel]));
      if (members !== null) this.#setMembers(members); // else they are read when the guild is opened
    });
  }

  /** @param {Member[]} members */
  #setMembers(members) {
    this.members = new Map(members.map((member) => [member.user_id, member]));
  }

  /** Read the members' presence. */
  async readPresence() {
    /** @param {unknown} refusal @returns {import("../openguild/types.js").GuildPresence} */
    const hidden = (refusal) => {
      if (refusal instanceof ApiError && refusal.code === "presence_off") return { shown: false, members: [] };
      throw refusal;
    };
    await this.#changes.read(() => this.client.presence(this.id).catch(hidden), ({ members }) => {
      this.presence = new Map(members.map(({ user_id: id, status }) => [id, status]));
    });
  }

  /** @param {string} userId @param {string} status */
  setPresence(userId, status) {
    this.#changes.make(() => this.presence.set(userId, status));
  }

  /** Apply an event of the guild's log. @param {LogEvent} told */
  apply(told) {
    this.#changes.make(() => this.#fold(told));
  }

  /** @param {LogEvent} told */
  #fold({ event }) {
    const { content } = event;
    switch (event.event_type) {
      case "guild.updated":
        this.guild = { ...this.guild, name: content["name"] };
        break;
      case "channel.created":
      case "channel.updated": {
        const id = content["channel_id"];
        const created = new Date(event.origin_ts).toISOString();
        const known = this.channels.get(id) ?? { channel_id: id, guild_id: this.id, created_at: created, epoch: 1 };
        this.channels.set(id, { ...known, name: content["name"], topic: content["topic"] ?? null, position: content["position"] ?? 0 });
        break;
      }
      case "channel.deleted":
        this.channels.delete(content["channel_id"]);
        break;
      case "member.joined":
        this.members.set(content["user_id"], {
          guild_id: this.id, user_id: content["user_id"], username: content["username"], role: content["role"],
          display_name: content["display_name"] ?? null, joined_at: new Date(event.origin_ts).toISOString(),
          timed_out_until: content["timed_out_until"] ?? null,
        });
        break;
      case "member.role_set": {
        const member = this.members.get(content["user_id"]);
        if (member !== undefined) this.members.set(member.user_id, { ...member, role: content["role"] });
        break;
      }
      case "member.timed_out": {
        const member = this.members.get(content["user_id"]);
        if (member !== undefined) this.members.set(member.user_id, { ...member, timed_out_until: content["until"] ?? null });
        break;
      }
      case "member.left":
      case "member.removed":
        this.members.delete(content["user_id"]);
        this.presence.delete(content["user_id"]);
    }
  }
}
