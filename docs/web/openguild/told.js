/** What a client tells its listeners. */

/** @typedef {import("./types.js").LogEvent} LogEvent */

/** `state`: `connecting`, `online`, `draining` (the server stops), `waiting` (for the next connection), `ended`.
 * @typedef {{state: "connecting" | "online" | "draining" | "waiting" | "ended", reason: string, retryMs: number | null}} Status */

/** @typedef {{channelId: string, userId: string, preview: string | null}} TypingSignal */
/** @typedef {{guildId: string, userId: string, status: import("./types.js").PresenceStatus}} PresenceChange */

/**
 * What `on` listens to. Besides these, each `event_type` of PROTOCOL 6 is a name, such as `message` and `reaction.added`, with a
 * LogEvent; `event` is all of them.
 * @typedef {{status: Status, session: import("./client.js").StoredClient["session"], ready: import("./types.js").Ready, typing: TypingSignal,
 *   presence: PresenceChange, guild: import("./everything.js").FollowedGuild, event: LogEvent, message: LogEvent,
 *   followed: {log: string, epoch: number, after: number, head: number, recovered: boolean}, gone: {log: string, code: string},
 *   refused: {log: string, code: string, message: string}, lagging: {log: string, head: number}, live: {log: string},
 *   failure: unknown}} Told
 */

/** @type {Record<keyof Told, true>} */
const NAMES = {
  status: true, session: true, ready: true, typing: true, presence: true, guild: true, event: true, message: true, followed: true,
  gone: true, refused: true, lagging: true, live: true, failure: true,
};

/** Whether anything can be told under a name: event types but `message` and `mentioned` have a dot. @param {string} name */
export const isName = (name) => Object.hasOwn(NAMES, name) || name === "mentioned" || String(name).includes(".");

/**
 * Return what listeners are told of a hint that is in no log.
 * @param {import("./phases.js").MachineEvent & {type: "ephemeral"}} told
 */
export function signalOf({ log, kind, data }) {
  const of = log.slice(log.indexOf(":") + 1);
  const { user_id: userId, preview = null, status } = data ?? {};
  if (kind === "typing") return { channelId: of, userId, preview };
  return kind === "presence" ? { guildId: of, userId, status } : data;
}
