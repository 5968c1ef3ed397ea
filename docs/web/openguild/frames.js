/** Parses and checks the server's frames (PROTOCOL 15.1.5). Unknown members and types are ignored. */

/** @typedef {import("./types.js").CanonicalEvent} CanonicalEvent */
/** @typedef {import("./types.js").Ready} Ready */
/** @typedef {import("./errors.js").Problem} Problem */

/** @typedef {{log: string, epoch: number, after: number, head: number, recovered: boolean}} SubbedLog */

/**
 * @typedef {{type: "hello", heartbeat_ms: number, limits: {frame_bytes: number}}
 *   | ({type: "ready"} & Ready)
 *   | {type: "sub_ok", ref: number, logs: SubbedLog[]}
 *   | {type: "ok", ref: number, result?: any}
 *   | {type: "err", ref: number, code: string, message: string, log?: string, retry_after_ms?: number, details?: Problem[]}
 *   | {type: "ev", log: string, epoch: number, seq: number, event: CanonicalEvent}
 *   | {type: "eph", log: string, kind: string, data: any}
 *   | {type: "gone", log: string, code: string}
 *   | {type: "lagging", log: string, head: number}
 *   | {type: "live", log: string}
 *   | {type: "hb"}
 *   | {type: "auth_expiring", expires_in_ms: number}
 *   | {type: "drain", reconnect_after_ms: number}} ServerFrame
 */

/** @param {unknown} value */
const count = (value) => Number.isInteger(value) && Number(value) >= 0;
/** @param {unknown} value */
const text = (value) => typeof value === "string";
/** @param {unknown} value */
const object = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
/** @param {unknown} value */
const anything = (value) => value !== undefined;
/** @param {(value: any) => boolean} check @returns {(value: unknown) => boolean} */
const listOf = (check) => (value) => Array.isArray(value) && value.every(check);
/** @param {(value: unknown) => boolean} check @returns {(value: unknown) => boolean} */
const optional = (check) => (value) => value === undefined || value === null || check(value);

/** @typedef {Record<string, (value: unknown) => boolean>} Members */

/** @param {Members} members @returns {(value: any) => boolean} */
const has = (members) => (value) => object(value) && Object.entries(members).every(([name, check]) => check(value[name]));

/** @type {Map<unknown, (value: any) => boolean>} */
const CHECKS = new Map(Object.entries({
  hello: has({ heartbeat_ms: count, limits: has({ frame_bytes: count }) }),
  ready: has({ user: has({ user_id: text, username: text }), session: object, guilds: listOf(object), heads: listOf(has({ log: text, epoch: count, head: count })) }),
  sub_ok: has({ ref: count, logs: listOf(has({ log: text, epoch: count, after: count, head: count, recovered: (value) => typeof value === "boolean" })) }),
  ok: has({ ref: count }),
  err: has({ ref: count, code: text, message: text, log: optional(text), retry_after_ms: optional(count), details: optional(listOf(object)) }),
  ev: has({ log: text, epoch: count, seq: count, event: object }),
  eph: has({ log: text, kind: text, data: anything }),
  gone: has({ log: text, code: text }),
  lagging: has({ log: text, head: count }),
  live: has({ log: text }),
  hb: has({}),
  auth_expiring: has({ expires_in_ms: count }),
  drain: has({ reconnect_after_ms: count }),
}));

/**
 * Parse a message of the server; return null for an unknown type, as of a newer release. Throws SyntaxError if it is not a frame.
 * @param {unknown} payload
 * @returns {ServerFrame | null}
 */
export function parseFrame(payload) {
  if (typeof payload !== "string") throw new SyntaxError("a binary message");
  const frame = JSON.parse(payload);
  if (!object(frame) || typeof frame.type !== "string") throw new SyntaxError("a message without a type");
  const check = CHECKS.get(frame.type);
  if (check === undefined) return null;
  if (!check(frame)) throw new SyntaxError(`a faulty ${frame.type}`);
  return frame;
}
