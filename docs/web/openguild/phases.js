/** The state machine of a gateway client, as data (PROTOCOL 15.9.4). */

/** @typedef {import("./types.js").LogEvent} LogEvent */
/** @typedef {import("./types.js").Ready} Ready */
/** @typedef {import("./errors.js").Problem} Problem */
/** @typedef {import("./frames.js").SubbedLog} SubbedLog */

/** @typedef {"idle" | "connecting" | "greeting" | "authenticating" | "open" | "draining" | "waiting" | "tokenless" | "ended"} Phase */
/** @typedef {"start" | "connected" | "hello" | "ready" | "drain" | "lost" | "token_refused" | "token" | "final" | "due" | "close"} Input */
/** @typedef {"answer" | "heartbeat" | "silence" | "slot" | "reconnect" | "retry"} Deadline */

/** @type {Record<Phase, Deadline[]>} the deadlines that a phase keeps */
export const DEADLINES = {
  idle: [], connecting: ["answer"], greeting: ["answer"], authenticating: ["answer"],
  open: ["heartbeat", "silence", "retry"], draining: ["heartbeat", "silence", "retry", "slot"],
  waiting: ["reconnect"], tokenless: ["reconnect"], ended: [],
};

/** @type {Partial<Record<Input, Phase>>} */
const ENDS = { lost: "waiting", token_refused: "tokenless", final: "ended", close: "ended" };

/** @type {Record<Phase, Partial<Record<Input, Phase>>>} */
export const TRANSITIONS = {
  idle: { start: "connecting", close: "ended" },
  connecting: { connected: "greeting", ...ENDS },
  greeting: { hello: "authenticating", ...ENDS },
  authenticating: { ready: "open", ...ENDS },
  open: { drain: "draining", ...ENDS },
  draining: { drain: "draining", ...ENDS },
  waiting: { due: "connecting", close: "ended" },
  tokenless: { token: "waiting", close: "ended" },
  ended: { close: "ended" },
};

/** @type {ReadonlySet<Phase>} */
export const WITH_SOCKET = new Set(/** @type {Phase[]} */ (["connecting", "greeting", "authenticating", "open", "draining"]));

/**
 * The machine's events, in order. `disconnect`: close the WebSocket and report nothing more of it. `token_needed`: call `setToken`;
 * null `expiresInMs`: the token has expired or was refused. `followed` with `recovered` false: discard what was read of the log and
 * read it again. `interrupted`: the next connection follows in `retryMs`; null: it waits for a token.
 * @typedef {{type: "connect"}
 *   | {type: "disconnect"}
 *   | {type: "token_needed", expiresInMs: number | null}
 *   | {type: "opened", ready: Ready}
 *   | ({type: "followed"} & SubbedLog)
 *   | {type: "refused", log: string, code: string, message: string}
 *   | ({type: "event"} & LogEvent)
 *   | {type: "ephemeral", log: string, kind: string, data: any}
 *   | {type: "gone", log: string, code: string}
 *   | {type: "lagging", log: string, head: number}
 *   | {type: "live", log: string}
 *   | {type: "answered", ref: number, result: any}
 *   | {type: "failed", ref: number, code: string, message: string, retryAfterMs: number | undefined, details: Problem[],
 *   mayBeDone: boolean}
 *   | {type: "dropped", ref: number}
 *   | {type: "draining", afterMs: number}
 *   | {type: "interrupted", reason: string, retryMs: number | null}
 *   | {type: "ended", code: number | null, reason: string}} MachineEvent
 */
