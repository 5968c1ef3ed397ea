/**
 * The shapes that the server sends (docs/api.md, Bodies). Times are RFC 3339 texts, ids are UUIDs, event ids begin with `$`.
 *
 * @typedef {{guild_id: string, name: string, role: Role, joined_at: string}} OwnGuild
 * @typedef {{channel_id: string, guild_id: string, name: string, role: Role, joined_at: string}} OwnChannel
 * @typedef {{user_id: string, username: string, display_name: string, server_name: string,
 *   guilds?: OwnGuild[], channels?: OwnChannel[]}} Me
 * @typedef {{guild_id: string, name: string, created_at: string}} Guild
 * @typedef {{channel_id: string, guild_id: string, name: string, created_at: string, epoch: number, topic?: string | null, position?: number}} Channel
 * @typedef {"owner" | "admin" | "moderator" | "maintainer" | "member" | "contributor" | "viewer" | "guest"} Role
 * @typedef {{guild_id: string, user_id: string, username: string, role: Role, joined_at: string, display_name?: string | null,
 *   timed_out_until?: string | null}} Member
 * @typedef {{guild_id: string, user_id: string, banned_by: string, banned_at: string, username?: string | null, reason?: string | null}} Ban
 * @typedef {{invite_id: string, code: string, guild_id: string, max_uses: number | null, uses: number, expires_at: string | null, created_by: string}} Invite
 * @typedef {{code: string, guild_id: string, guild_name: string, member_count: number, expires_at: string | null}} InvitePreview
 * @typedef {{id: string, username?: string | null}} Author
 * @typedef {{emoji: string, count: number, me: boolean, reactors?: string[]}} Reaction
 * @typedef {{event_id: string, sequence: number, author: Author, content?: string | null}} MessagePreview
 *
 * The current state of a message (PROTOCOL 7.8.3).
 * @typedef {object} Message
 * @property {string} event_id
 * @property {number} sequence
 * @property {string} channel_id
 * @property {Author} author
 * @property {string} created_at
 * @property {string | null} [content] absent if the message was redacted
 * @property {string | null} [edited_at]
 * @property {number} [versions]
 * @property {string | null} [redacted_by]
 * @property {string | null} [pinned_at]
 * @property {Reaction[]} [reactions]
 * @property {number} [reply_count]
 * @property {string | null} [reply_to]
 * @property {MessagePreview | null} [reply_preview]
 *
 * @typedef {{messages: Message[], epoch: number, head: number}} MessagePage `head`: follow the log after this sequence
 * @typedef {{sequence: number, event_id: string, created_at: string}} PostedMessage
 * @typedef {{message_id: string, sequence?: number | null, event_id?: string | null, created_at?: string | null}} ChangedMessage
 * @typedef {{sequence: number, event_id: string, created_at: string, content?: string | null}} TextVersion
 * @typedef {{channel_id: string, last_read_sequence: number, latest_sequence: number, unread: number, mentions: number}} ReadPosition
 * @typedef {{channel_id: string, guild_id: string, event_id: string, sequence: number, created_at: string, author: Author, content: string, direct: boolean, unread: boolean}} Mention
 * @typedef {{id: string, event_id: string, channel_id: string, guild_id: string, sequence: number, author: Author, title: string, subtitle: string, snippet: string, created_at: string, edited_at?: string | null}} SearchResult
 * @typedef {"online" | "idle" | "offline"} PresenceStatus
 * @typedef {{shown: boolean, members: {user_id: string, status: PresenceStatus}[]}} GuildPresence
 * @typedef {{users?: string[], roles?: Role[], everyone?: boolean}} AllowedMentions
 *
 * The canonical event (PROTOCOL 6.1). `content` differs by `event_type`.
 * @typedef {object} CanonicalEvent
 * @property {string} event_id
 * @property {string} event_type
 * @property {string} sender
 * @property {string} room_id
 * @property {number} origin_ts
 * @property {Record<string, any>} content
 *
 * An event of a log. Events arrive once and in order.
 * @typedef {{log: string, epoch: number, sequence: number, event: CanonicalEvent}} LogEvent
 *
 * A place in a log: a sequence within an epoch; epoch 0 stands for the log's current one.
 * @typedef {{epoch: number, sequence: number}} ResumePosition
 *
 * Where to begin: after the sequence `after` (of `epoch`), else with the newest `tail` events, else from now on.
 * @typedef {{epoch?: number | undefined, after?: number | undefined, tail?: number | undefined}} Beginning
 *
 * @typedef {{user: {user_id: string, username: string}, session: {session_id: string, expires_at: string}, guilds: Guild[], heads: {log: string, epoch: number, head: number}[]}} Ready
 */
export {};
