/**
 * Typed methods for the routes of docs/api.md. All reject with ApiError, OutcomeUnknown or ConnectionEnded. Reads and idempotent
 * changes are retried. So are requests that create something: each attempt has the same key (PROTOCOL 3.8).
 */

import { ApiError } from "./errors.js";
import { randomKey } from "./keys.js";
import { encodeSegment as id } from "./texts.js";

/** @typedef {import("./types.js").Me} Me */
/** @typedef {import("./types.js").Guild} Guild */
/** @typedef {import("./types.js").Channel} Channel */
/** @typedef {import("./types.js").Member} Member */
/** @typedef {import("./types.js").Ban} Ban */
/** @typedef {import("./types.js").Invite} Invite */
/** @typedef {import("./types.js").Message} Message */
/** @typedef {import("./types.js").Role} Role */
/** @typedef {import("./http.js").Answer} Answer */
/** @typedef {import("./http.js").RequestOptions} RequestOptions */

/**
 * Return the code of an invite, given as a link such as `https://chat.example.org/#invite=CODE` or as the code alone.
 * @param {string} invite
 */
export function inviteCode(invite) {
  if (typeof invite !== "string") throw new ApiError(400, "validation_error", "an invite is a code or a link, as a text");
  return /[#?&]invite=([^&#\s]+)/.exec(invite)?.[1] ?? invite.trim();
}

/** @abstract */
export class Api {
  /**
   * Send a request to a route and return its status, headers and JSON.
   * @abstract
   * @param {string} _method
   * @param {string} _path after `/client/v1`
   * @param {RequestOptions} [_options]
   * @returns {Promise<Answer>}
   */
  request(_method, _path, _options) {
    throw new Error("abstract");
  }

  /** @param {string} path @param {RequestOptions["query"]} [query] @returns {Promise<any>} */
  async #get(path, query) {
    return (await this.request("GET", path, query === undefined ? {} : { query })).body;
  }

  /** @param {string} method @param {string} path @param {unknown} [body] @returns {Promise<any>} */
  async #change(method, path, body) {
    return (await this.request(method, path, { ...(body === undefined ? {} : { body }), repeatable: method !== "DELETE" })).body;
  }

  /** @param {string} path @param {unknown} [body] @returns {Promise<any>} */
  async #create(path, body) {
    return (await this.request("POST", path, { ...(body === undefined ? {} : { body }), key: randomKey() })).body;
  }

  /**
   * Return all items of a list, over all its pages.
   * @param {string} path
   * @param {RequestOptions["query"]} [query]
   * @returns {Promise<any[]>}
   */
  async list(path, query = {}) {
    return (await this.listAt(path, query)).items;
  }

  /**
   * Return all items of a list, and the head of the log that the first page names (PROTOCOL 7.9.5); 0 if it names none.
   * @param {string} path
   * @param {RequestOptions["query"]} [query]
   * @returns {Promise<{items: any[], head: number}>}
   */
  async listAt(path, query = {}) {
    const items = [];
    let next = query;
    let head = -1;
    for (;;) {
      const { body, headers } = await this.request("GET", path, { query: next });
      items.push(...body);
      if (head < 0) head = Number(headers.get("x-openguild-head") ?? 0);
      const after = headers.get("x-next-after");
      const cursor = headers.get("x-next-cursor");
      if (after === null && cursor === null) return { items, head };
      next = { ...query, ...(after === null ? {} : { after }), ...(cursor === null ? {} : { cursor }) };
    }
  }

  // --- accounts ----------------------------------------------------------------------------------------

  /** @returns {Promise<Me>} */
  me() {
    return this.#get("/users/me");
  }

  /** Set the display name; with an empty one, the username is shown. @param {string} name */
  setDisplayName(name) {
    return this.#change("PATCH", "/users/@me", { display_name: name });
  }

  // --- guilds and channels -------------------------------------------------------------------------------

  /** @returns {Promise<Guild[]>} */
  guilds() {
    return this.list("/guilds");
  }

  /** @param {string} guildId @returns {Promise<Guild>} */
  guild(guildId) {
    return this.#get(`/guilds/${id(guildId)}`);
  }

  /** @param {string} name @returns {Promise<Guild>} */
  createGuild(name) {
    return this.#create("/guilds", { name });
  }

  /** @param {string} guildId @param {string} name @returns {Promise<Guild>} */
  renameGuild(guildId, name) {
    return this.#change("PATCH", `/guilds/${id(guildId)}`, { name });
  }

  /** @param {string} guildId */
  deleteGuild(guildId) {
    return this.#change("DELETE", `/guilds/${id(guildId)}`);
  }

  /** @param {string} guildId */
  leaveGuild(guildId) {
    return this.#change("DELETE", `/guilds/${id(guildId)}/members/@me`);
  }

  /** @param {string} guildId @returns {Promise<Channel[]>} */
  channels(guildId) {
    return this.list(`/guilds/${id(guildId)}/channels`);
  }

  /** @param {string} channelId @returns {Promise<Channel>} */
  channel(channelId) {
    return this.#get(`/channels/${id(channelId)}`);
  }

  /** @param {string} guildId @param {string} name @param {{topic?: string, position?: number}} [more] @returns {Promise<Channel>} */
  createChannel(guildId, name, more = {}) {
    return this.#create(`/guilds/${id(guildId)}/channels`, { name, ...more });
  }

  /** @param {string} channelId @param {{name?: string, topic?: string, position?: number}} change @returns {Promise<Channel>} */
  changeChannel(channelId, change) {
    return this.#change("PATCH", `/channels/${id(channelId)}`, change);
  }

  /** @param {string} channelId */
  deleteChannel(channelId) {
    return this.#change("DELETE", `/channels/${id(channelId)}`);
  }

  // --- members and invites -------------------------------------------------------------------------------

  /** @param {string} guildId @returns {Promise<Member[]>} */
  members(guildId) {
    return this.list(`/guilds/${id(guildId)}/members`);
  }

  /** @param {string} guildId @param {string} userId @param {Role} role @returns {Promise<Member>} */
  setRole(guildId, userId, role) {
    return this.#change("PUT", `/guilds/${id(guildId)}/members/${id(userId)}`, { role });
  }

  /** @param {string} guildId @param {string} userId */
  removeMember(guildId, userId) {
    return this.#change("DELETE", `/guilds/${id(guildId)}/members/${id(userId)}`);
  }

  /**
   * Ban a user, as a moderator, and remove them if they are a member. An existing ban stays as it is. While the ban lasts, their
   * `acceptInvite` rejects with the code `banned`.
   * @param {string} guildId
   * @param {string} userId
   * @param {{reason?: string | undefined}} [options]
   * @returns {Promise<Ban>}
   */
  async banMember(guildId, userId, { reason } = {}) {
    return (await this.request("PUT", `/guilds/${id(guildId)}/bans/${id(userId)}`, { query: { reason }, repeatable: true })).body;
  }

  /**
   * Lift a ban, so that the user may join again.
   * @param {string} guildId
   * @param {string} userId
   * @param {{reason?: string | undefined}} [options]
   */
  async unbanMember(guildId, userId, { reason } = {}) {
    return (await this.request("DELETE", `/guilds/${id(guildId)}/bans/${id(userId)}`, { query: { reason } })).body;
  }

  /** Return the bans of a guild, oldest first, for moderators. @param {string} guildId @returns {Promise<Ban[]>} */
  bans(guildId) {
    return this.list(`/guilds/${id(guildId)}/bans`);
  }

  /**
   * Time a member out, as a moderator: for `secs` seconds they may only read. It replaces an earlier time-out.
   * @param {string} guildId
   * @param {string} userId
   * @param {number} secs
   * @param {{reason?: string | undefined}} [options]
   * @returns {Promise<Member>}
   */
  async timeOut(guildId, userId, secs, { reason } = {}) {
    const path = `/guilds/${id(guildId)}/members/${id(userId)}/timeout`;
    return (await this.request("PUT", path, { query: { reason }, body: { secs }, repeatable: true })).body;
  }

  /**
   * End a member's time-out early.
   * @param {string} guildId
   * @param {string} userId
   * @param {{reason?: string | undefined}} [options]
   */
  async endTimeout(guildId, userId, { reason } = {}) {
    return (await this.request("DELETE", `/guilds/${id(guildId)}/members/${id(userId)}/timeout`, { query: { reason } })).body;
  }

  /** @param {string} guildId @param {{maxUses?: number, expiresInSecs?: number}} [bounds] @returns {Promise<Invite>} */
  createInvite(guildId, { maxUses, expiresInSecs } = {}) {
    return this.#create(`/guilds/${id(guildId)}/invites`, { max_uses: maxUses, expires_in_secs: expiresInSecs });
  }

  /** @param {string} guildId @returns {Promise<Invite[]>} */
  invites(guildId) {
    return this.list(`/guilds/${id(guildId)}/invites`);
  }

  /** @param {string} invite a code or a link @returns {Promise<import("./types.js").InvitePreview>} */
  async previewInvite(invite) {
    return await this.#get(`/invites/${id(inviteCode(invite))}`);
  }

  /** Join the guild; members keep their role. @param {string} invite a code or a link @returns {Promise<Member>} */
  async acceptInvite(invite) {
    return await this.#create(`/invites/${id(inviteCode(invite))}/accept`);
  }

  /** @param {string} code */
  deleteInvite(code) {
    return this.#change("DELETE", `/invites/${id(code)}`);
  }

  // --- messages ------------------------------------------------------------------------------------------

  /**
   * Return a page of messages in their current state, oldest first: the newest ones, or those that one bound, a sequence, selects.
   * To keep it current, follow the log after its `head` and fold the events with `foldMessages`.
   * @param {string} channelId
   * @param {{before?: number, after?: number, around?: number, limit?: number}} [bounds]
   * @returns {Promise<import("./types.js").MessagePage>}
   */
  async messages(channelId, bounds = {}) {
    const { body, headers } = await this.request("GET", `/channels/${id(channelId)}/messages`, { query: bounds });
    return { messages: body, epoch: Number(headers.get("x-openguild-epoch")), head: Number(headers.get("x-openguild-head")) };
  }

  /** @param {string} channelId @param {string} eventId @returns {Promise<Message>} */
  message(channelId, eventId) {
    return this.#get(`/channels/${id(channelId)}/messages/${id(eventId)}`);
  }

  /**
   * Return the texts that a message has had, oldest first.
   * @param {string} channelId
   * @param {string} eventId
   * @returns {Promise<import("./types.js").TextVersion[]>}
   */
  versions(channelId, eventId) {
    return this.#get(`/channels/${id(channelId)}/messages/${id(eventId)}/versions`);
  }

  /** Return the pinned messages, the newest pin first. @param {string} channelId @returns {Promise<Message[]>} */
  pins(channelId) {
    return this.list(`/channels/${id(channelId)}/pins`);
  }

  /**
   * Find messages, the newest first (PROTOCOL 7.11). `in`: ids of channels and guilds.
   * @param {{q?: string, from?: string, in?: string[], has?: string[], before?: string, after?: string, limit?: number, cursor?: string}} query
   * @returns {Promise<{results: import("./types.js").SearchResult[], cursor: string | null}>}
   */
  async search({ in: places, has, ...query }) {
    const lists = { in: places?.join(","), has: has?.join(",") };
    const { body, headers } = await this.request("GET", "/search/messages", { query: { ...query, ...lists } });
    return { results: body, cursor: headers.get("x-next-cursor") };
  }

  /**
   * Return a page of a log, oldest first (PROTOCOL 7.6, 7.9.1).
   * @param {string} log `channel:<id>`, `guild:<id>` or `user:<own id>`
   * @param {{since?: number, epoch?: number, before?: number, limit?: number}} [bounds]
   * @returns {Promise<{sequence: number, event: import("./types.js").CanonicalEvent}[]>}
   */
  logPage(log, bounds = {}) {
    const [kind, of = ""] = log.split(":");
    const path = { channel: `/channels/${id(of)}/events`, guild: `/guilds/${id(of)}/log` }[kind ?? ""] ?? "/users/@me/log";
    return this.#get(path, bounds);
  }

  // --- the caller's own account --------------------------------------------------------------------------

  /**
   * Change the password; all other devices are logged out. Rejects with ApiError `wrong_password` if `current` is not the password.
   * The request is not retried. After OutcomeUnknown call it with `next` for both: it resolves if the change was made, else rejects
   * with `wrong_password`.
   * @param {string} current
   * @param {string} next
   */
  async changePassword(current, next) {
    await this.request("POST", "/users/@me/password", { body: { current_password: current, new_password: next } });
  }

  /**
   * Delete the account for good. Rejects with ApiError `wrong_password`, or `last_owner` if guilds have no other owner; its
   * `details` name them. The request is not retried. After OutcomeUnknown call it again: if the session has ended, the account is
   * deleted.
   * @param {string} password
   */
  async deleteAccount(password) {
    await this.request("POST", "/users/@me/delete", { body: { current_password: password } });
  }

  /** @returns {Promise<import("./types.js").ReadPosition[]>} */
  unread() {
    return this.list("/channels/unread");
  }

  /**
   * Return the messages that mention the caller, newest first.
   * @param {{unread?: boolean}} [which]
   * @returns {Promise<import("./types.js").Mention[]>}
   */
  inbox(which = {}) {
    return this.list("/inbox", which);
  }

  /** @param {string} guildId @returns {Promise<import("./types.js").GuildPresence>} */
  presence(guildId) {
    return this.#get(`/guilds/${id(guildId)}/presence`);
  }
}
