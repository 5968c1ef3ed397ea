/** The events that a client's listeners get. */

/** @typedef {import("./types.js").LogEvent} LogEvent */

/** `state`: `connecting`, `online`, `draining` (the server is about to stop), `waiting` (for the next connection), `ended`.
 * @typedef {{state: "connecting" | "online" | "draining" | "waiting" | "ended", reason: string, retryMs: number | null}} Status */

/** @typedef {{channelId: string, userId: string, preview: string | null}} TypingSignal */
/** @typedef {{guildId: string, userId: string, status: import("./types.js").PresenceStatus}} PresenceChange */

/**
 * The names for `Client.on`, with the type that their listeners get. Each `event_type` of PROTOCOL 6 is a name, too, such as
 * `reaction.added`, with a LogEvent; `event` is for all of them.
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

/**
 * Return whether a name can have listeners: all event types except `message` and `mentioned` contain a dot.
 * @param {string} name
 */
export const isName = (name) => Object.hasOwn(NAMES, name) || name === "mentioned" || String(name).includes(".");

/**
 * Return the argument for listeners of an ephemeral event: typing or presence, which no log stores.
 * @param {import("./phases.js").MachineEvent & {type: "ephemeral"}} told
 */
export function signalOf({ log, kind, data }) {
  const of = log.slice(log.indexOf(":") + 1);
  const { user_id: userId, preview = null, status } = data ?? {};
  if (kind === "typing") return { channelId: of, userId, preview };
  return kind === "presence" ? { guildId: of, userId, status } : data;
}
