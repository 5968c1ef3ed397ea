/**
 * Typed methods for the routes of docs/api.md. All reject with ApiError, OutcomeUnknown and ConnectionEnded. Reads are repeated
 * after a lost connection. So are creations, with the same key in each attempt (PROTOCOL 3.8), and requests that may be done twice.
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

/** The code of an invite. The text is a link such as `https://chat.example.org/#invite=CODE`, or the code itself. @param {string} invite */
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
   * @param {string} _path behind `/client/v1`
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
   * The same, with the place in the log that the first page names, if any (PROTOCOL 7.9.5).
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

  /** Set the display name. With an empty name, the username is shown. @param {string} name */
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
   * Ban a user, as a moderator, and remove the user from the guild. An existing ban stays as it is. During the ban, the user's
   * `acceptInvite` rejects with the code `banned`.
   * @param {string} guildId
   * @param {string} userId
   * @param {{reason?: string | undefined}} [options]
   * @returns {Promise<Ban>}
   */
  async banMember(guildId, userId, { reason } = {}) {
    return (await this.request("PUT", `/guilds/${id(guildId)}/bans/${id(userId)}`, { query: { reason }, repeatable: true })).body;
  }

  /** End a ban: the user may join again. @param {string} guildId @param {string} userId @param {{reason?: string | undefined}} [options] */
  async unbanMember(guildId, userId, { reason } = {}) {
    return (await this.request("DELETE", `/guilds/${id(guildId)}/bans/${id(userId)}`, { query: { reason } })).body;
  }

  /** The bans of a guild, oldest first, for moderators. @param {string} guildId @returns {Promise<Ban[]>} */
  bans(guildId) {
    return this.list(`/guilds/${id(guildId)}/bans`);
  }

  /**
   * Time a member out for `secs`, as a moderator: the member may only read. It replaces an existing time-out.
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

  /** End a member's time-out before its time. @param {string} guildId @param {string} userId @param {{reason?: string | undefined}} [options] */
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

  /** Join the guild. A member keeps the current role. @param {string} invite a code or a link @returns {Promise<Member>} */
  async acceptInvite(invite) {
    return await this.#create(`/invites/${id(inviteCode(invite))}/accept`);
  }

  /** @param {string} code */
  deleteInvite(code) {
    return this.#change("DELETE", `/invites/${id(code)}`);
  }

  // --- messages ------------------------------------------------------------------------------------------

  /**
   * Return a page of messages in their current state, oldest first: the newest ones, or those at one bound, a sequence.
   * To keep the page up to date, follow the log after its `head` and apply the events with `foldMessages`.
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

  /** The versions of a message's text, oldest first. @param {string} channelId @param {string} eventId @returns {Promise<import("./types.js").TextVersion[]>} */
  versions(channelId, eventId) {
    return this.#get(`/channels/${id(channelId)}/messages/${id(eventId)}/versions`);
  }

  /** The newest pin first. @param {string} channelId @returns {Promise<Message[]>} */
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
   * A page of a log, oldest first (PROTOCOL 7.6, 7.9.1).
   * @param {string} log `channel:<id>`, `guild:<id>` or `user:<own id>`
   * @param {{since?: number, epoch?: number, before?: number, limit?: number}} [bounds]
   * @returns {Promise<{sequence: number, event: import("./types.js").CanonicalEvent}[]>}
   */
  logPage(log, bounds = {}) {
    const [kind, of = ""] = log.split(":");
    const path = { channel: `/channels/${id(of)}/events`, guild: `/guilds/${id(of)}/log` }[kind ?? ""] ?? "/users/@me/log";
    return this.#get(path, bounds);
  }

  // --- what concerns oneself -----------------------------------------------------------------------------

  /**
   * Change the password; all other devices are logged out. Rejects with ApiError `wrong_password` if `current` is not the password.
   * It is sent once. After OutcomeUnknown, call it with `next` for both: it resolves if the change was made, and otherwise rejects
   * with `wrong_password`.
   * @param {string} current
   * @param {string} next
   */
  async changePassword(current, next) {
    await this.request("POST", "/users/@me/password", { body: { current_password: current, new_password: next } });
  }

  /**
   * Delete the account permanently. Rejects with ApiError `wrong_password`, or `last_owner` if a guild has no other owner; its `details`
   * name these guilds. It is sent once. After OutcomeUnknown, call it again: if the session has ended, the account is deleted.
   * @param {string} password
   */
  async deleteAccount(password) {
    await this.request("POST", "/users/@me/delete", { body: { current_password: password } });
  }

  /** @returns {Promise<import("./types.js").ReadPosition[]>} */
  unread() {
    return this.list("/channels/unread");
  }

  /** The messages that mention the user, newest first. @param {{unread?: boolean}} [which] @returns {Promise<import("./types.js").Mention[]>} */
  inbox(which = {}) {
    return this.list("/inbox", which);
  }

  /** @param {string} guildId @returns {Promise<import("./types.js").GuildPresence>} */
  presence(guildId) {
    return this.#get(`/guilds/${id(guildId)}/presence`);
  }
}
