/** HTTP requests with retries, by the same rules as the Python client (docs/client.md, Retries). */

import { ApiError, isTemporary, leavesOpen, OpenGuildError, OutcomeUnknown } from "./errors.js";
import { Backoff } from "./policy.js";
import { pause, whenAborted } from "./retries.js";
import { isKey, isWellFormed, LONE_SURROGATE } from "./texts.js";

const ATTEMPT_MS = 20_000;
const BAD_KEY = { field: "key", message: "must have 1 to 64 visible ASCII characters" };

/** @typedef {{status: number, headers: Headers, body: any}} Answer */

/**
 * @typedef {object} RequestOptions
 * @property {unknown} [body] sent as JSON
 * @property {Record<string, string | number | boolean | undefined>} [query] members without a value are left out
 * @property {boolean} [authorized] send the session's token; true by default
 * @property {string} [key] with it the server carries the request out once, however often it is sent (PROTOCOL 7.5)
 * @property {boolean} [repeatable] the request may be sent twice; by default true for GET and for requests with a key
 */

/**
 * @typedef {object} HttpParts
 * @property {string} base the server's address with `/client/v1`
 * @property {typeof fetch} fetch
 * @property {() => number} random
 * @property {number} retryMs how long a request is retried
 * @property {(refused?: string) => Promise<string>} freshToken
 * @property {AbortSignal} closed aborted when the client is closed
 * @property {() => AbortSignal} left returns the signal that is aborted when the session ends, by another login or with the client
 */

/**
 * Return the origin, `http://host:port`, of a server's address. Throws OpenGuildError for anything else.
 * @param {string} url
 */
export function originOf(url) {
  const parsed = URL.canParse(url) ? new URL(url) : null;
  if (parsed?.username || parsed?.password) throw new OpenGuildError("a server's address must not contain a user: expected http://host:port; pass the user to `login`");
  if (!["http:", "https:"].includes(parsed?.protocol ?? "") || parsed?.pathname !== "/" || parsed.search !== "") throw new OpenGuildError(`not a server's address: '${url}': expected http://host:port`);
  return /** @type {URL} */ (parsed).origin;
}

export class Http {
  /** @type {HttpParts} */
  #parts;

  /** @param {HttpParts} parts */
  constructor(parts) {
    this.#parts = parts;
  }

  /**
   * Send a request until it succeeds, is refused, or the time for retries has passed.
   * Rejects with ApiError (nothing was changed), OutcomeUnknown, and ConnectionEnded where the client is closed before it is sent.
   * @param {string} method
   * @param {string} path after `/client/v1`
   * @param {RequestOptions} [options]
   * @returns {Promise<Answer>}
   */
  async send(method, path, { body, query = {}, authorized = true, key, repeatable = method === "GET" || key !== undefined } = {}) {
    if (!isWellFormed([path, body, query])) throw new ApiError(400, "invalid_json", LONE_SURROGATE);
    if (key !== undefined && !isKey(key)) {
      throw new ApiError(400, "validation_error", "the request has invalid fields", { details: [BAD_KEY] });
    }
    const wanted = Object.entries(query).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)]]));
    const url = `${this.#parts.base}${path}${wanted.length > 0 ? `?${new URLSearchParams(wanted)}` : ""}`;
    /** @type {Record<string, string>} */
    const headers = {};
    if (body !== undefined) headers["content-type"] = "application/json";
    if (key !== undefined) headers["idempotency-key"] = key;
    /** @type {RequestInit & {headers: Record<string, string>}} */
    const init = { method, headers, redirect: "manual" };
    if (body !== undefined) init.body = JSON.stringify(body);
    // a refused login or refresh was not carried out by an earlier attempt either: it is about the credentials
    const isChange = key !== undefined || !repeatable || (authorized && method !== "GET");
    const attempts = { mayBeDone: false };
    try {
      return await this.#sendUntilAnswered(url, init, { authorized, repeatable, attempts });
    } catch (end) {
      if (!(end instanceof OutcomeUnknown) && !(end instanceof OpenGuildError && isChange && attempts.mayBeDone)) throw end;
      throw new OutcomeUnknown(end.message, key);
    }
  }

  /**
   * Send until there is an answer. Rejects with the failure of the last attempt; sets `attempts.mayBeDone` if an attempt may have
   * been carried out.
   * @param {string} url
   * @param {RequestInit & {headers: Record<string, string>}} init
   * @param {{authorized: boolean, repeatable: boolean, attempts: {mayBeDone: boolean}}} how
   * @returns {Promise<Answer>}
   */
  async #sendUntilAnswered(url, init, { authorized, repeatable, attempts }) {
    const { freshToken, random, retryMs } = this.#parts;
    const closed = authorized ? this.#parts.left() : this.#parts.closed;
    const backoff = new Backoff(random);
    const deadline = performance.now() + retryMs;
    let isRefreshed = false;
    for (;;) {
      const token = authorized ? await freshToken() : undefined;
      if (token !== undefined) init.headers["authorization"] = `Bearer ${token}`;
      const { answer, reason } = await this.#attempt(url, init, closed);
      if (answer !== undefined && answer.status < 400) return answer;
      if (answer?.status === 401 && token !== undefined && !isRefreshed) {
        isRefreshed = true;
        await freshToken(token);
        continue;
      }
      const refusal = answer && apiError(answer);
      if (refusal === undefined || leavesOpen(refusal.code, refusal.status)) attempts.mayBeDone = true;
      const again = repeatable && (refusal === undefined || isTemporary(refusal.status));
      const advisedMs = refusal?.retryAfter === undefined ? undefined : refusal.retryAfter * 1_000;
      const delay = backoff.nextDelay({ advisedMs });
      if (!again || performance.now() + delay > deadline) throw refusal ?? new OutcomeUnknown(reason);
      await pause(delay, closed);
    }
  }

  /**
   * Make one attempt. Without `answer`, `reason` says why there is none.
   * @param {string} url
   * @param {RequestInit} init
   * @param {AbortSignal} closed
   * @returns {Promise<{answer?: Answer, reason: string}>}
   */
  async #attempt(url, init, closed) {
    const { fetch, retryMs } = this.#parts; // called without `this`
    closed.throwIfAborted();
    const { signal, done } = signalUntil(closed, Math.min(ATTEMPT_MS, retryMs));
    let response, text;
    try {
      response = await fetch(url, { ...init, signal });
      text = await response.text();
    } catch (failure) {
      return { reason: `no answer: ${failure instanceof Error ? (failure.cause ?? failure) : failure}` };
    } finally {
      done();
    }
    const foreign = foreignAnswer(response, text);
    if (foreign !== null) return { reason: foreign };
    if (text === "" && response.ok && response.status !== 204) return { reason: `HTTP ${response.status} without a body` };
    let body = null;
    try {
      if (text !== "") body = JSON.parse(text);
    } catch (fault) {
      if (!(fault instanceof SyntaxError)) throw fault;
      if (response.status < 400) return { reason: `HTTP ${response.status} without valid JSON` };
    }
    return { answer: { status: response.status, headers: response.headers, body }, reason: `HTTP ${response.status}` };
  }
}

/**
 * Return a signal that is aborted with `closed` or after `ms`, and `done`, which releases it. AbortSignal.any would leak: Node 20
 * keeps its result for as long as the source signal lives.
 * @param {AbortSignal} closed
 * @param {number} ms
 */
function signalUntil(closed, ms) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(new DOMException(`no answer within ${ms} ms`, "TimeoutError")), ms);
  const forget = whenAborted(closed, () => controller.abort(closed.reason));
  const done = () => {
    clearTimeout(timer);
    forget();
  };
  return { signal: controller.signal, done };
}

/**
 * Return null for a response of the server, else why it must come from a proxy or a portal. Redirects are not followed, so that the
 * token goes to the given address only.
 * @param {Response} response
 * @param {string} text
 */
function foreignAnswer(response, text) {
  if (isTemporary(response.status)) return null;
  if (response.type === "opaqueredirect" || (response.status >= 300 && response.status < 400)) return "a redirect, which is not followed";
  const kind = (response.headers.get("content-type") ?? "").split(";")[0]?.trim().toLowerCase();
  const isOurs = kind ? kind === "application/json" || kind === "text/plain" : /^\s*[[{]/.test(text);
  return text !== "" && !isOurs ? `HTTP ${response.status} with ${kind || "no content type"}: not from the server` : null;
}

/** @param {Answer} answer */
function apiError({ status, headers, body }) {
  const seconds = Number(headers.get("retry-after") ?? NaN);
  /** @type {{retryAfter?: number}} */
  const retryAfter = Number.isInteger(seconds) && seconds >= 0 ? { retryAfter: seconds } : {};
  if (typeof body?.retry_after_ms === "number") retryAfter.retryAfter = body.retry_after_ms / 1_000;
  const { error = "unknown", message = "no error of the server's", request_id: requestId = "", details = [] } = body ?? {};
  return new ApiError(status, error, message, { ...retryAfter, requestId, details });
}
