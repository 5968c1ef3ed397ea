/** Keeps the token pair of one login, and refreshes it before it expires or when it is refused (PROTOCOL 4.6). */

import { ApiError, isTemporary, OpenGuildError, OutcomeUnknown } from "./errors.js";
import { REFRESH_AHEAD_MS } from "./policy.js";

/** The part of a token pair that is stored. Protect it like a password; the next refresh replaces it.
 * @typedef {{access_token: string, refresh_token: string}} StoredSession */
/** @typedef {{access_token: string, access_expires_at: string, refresh_token: string}} TokenPair */

export class SessionKeeper {
  /** @type {StoredSession | null} */
  #pair = null;
  #refreshAt = Infinity; // by performance.now(); Infinity for a pair from storage, which is refreshed after a 401
  /** @type {{pair: StoredSession, done: Promise<void>} | null} */
  #refreshing = null;
  /** @type {string | null} */
  #userId = null;

  /**
   * @param {(refreshToken: string) => Promise<TokenPair>} exchange
   * @param {(session: StoredSession | null) => void} onChange
   */
  constructor(exchange, onChange) {
    this.exchange = exchange;
    this.onChange = onChange;
  }

  /** The pair, for storage; null if nobody is logged in. */
  get stored() {
    return this.#pair;
  }

  /** The id of the user whose session it is or was; null if unknown. */
  get userId() {
    return this.#userId;
  }

  /** @param {StoredSession} stored */
  restore(stored) {
    this.#pair = { access_token: stored.access_token, refresh_token: stored.refresh_token };
    this.#userId = payloadOf(stored.access_token).user_id ?? null;
    this.#refreshAt = Infinity;
  }

  /** Keep the token pair of a login or a refresh. @param {TokenPair} pair */
  keep(pair) {
    this.#pair = { access_token: pair.access_token, refresh_token: pair.refresh_token };
    this.#userId = payloadOf(pair.access_token).user_id ?? null;
    const lifeMs = lifetimeMs(pair);
    this.#refreshAt = lifeMs > 0 ? performance.now() + lifeMs - Math.min(REFRESH_AHEAD_MS, lifeMs / 10) : Infinity;
    this.onChange(this.#pair);
  }

  /** Forget the session: it has ended. */
  forget() {
    if (this.#pair === null) return;
    this.#pair = null;
    this.onChange(null);
  }

  /**
   * Return an access token that does not expire soon and is not `refused`. Concurrent callers share one refresh.
   * Rejects with ApiError (401: the session has ended), OutcomeUnknown, and OpenGuildError before a login.
   * @param {string} [refused]
   */
  async fresh(refused) {
    const pair = this.#mustHave();
    if (pair.access_token === refused || performance.now() >= this.#refreshAt) {
      if (this.#refreshing?.pair !== pair) this.#refreshing = { pair, done: this.#refresh(pair) };
      await this.#refreshing.done;
    }
    return this.#mustHave().access_token;
  }

  /** Wait until no refresh runs: it would replace the token that the caller revokes. */
  async settled() {
    await this.#refreshing?.done.catch(() => {}); // the caller of the refresh gets the failure
  }

  /** Exchange the refresh token. If a login has replaced the pair meanwhile, the answer is ignored. @param {StoredSession} pair */
  async #refresh(pair) {
    try {
      const next = await this.exchange(pair.refresh_token);
      if (this.#pair === pair) this.keep(next);
    } catch (failure) {
      const hasEnded = failure instanceof ApiError && !isTemporary(failure.status);
      if (hasEnded && this.#pair === pair) this.forget();
      throw failure;
    } finally {
      if (this.#refreshing?.pair === pair) this.#refreshing = null;
    }
  }

  #mustHave() {
    if (this.#pair === null) throw new OpenGuildError("log in first");
    return this.#pair;
  }
}

/** Return the token pair in an answer. Throws OutcomeUnknown if there is none. @param {any} body @returns {TokenPair} */
export function pairOf(body) {
  if (typeof body?.access_token === "string" && typeof body.refresh_token === "string") return body;
  throw new OutcomeUnknown("the answer has no tokens");
}

/**
 * Return the lifetime of the access token in milliseconds; 0 if unknown. Both times are the server's: this machine's clock may be
 * wrong.
 * @param {TokenPair} pair
 */
function lifetimeMs(pair) {
  return Math.max(Date.parse(pair.access_expires_at) - Date.parse(payloadOf(pair.access_token).issued_at ?? ""), 0) || 0;
}

/**
 * Return the payload of a token; an empty object if it cannot be decoded.
 * @param {string} token
 * @returns {{user_id?: string, issued_at?: string}}
 */
export function payloadOf(token) {
  try {
    return JSON.parse(atob((token.split(".")[0] ?? "").replaceAll("-", "+").replaceAll("_", "/"))) ?? {};
  } catch (fault) {
    if (fault instanceof SyntaxError || fault instanceof DOMException) return {};
    throw fault;
  }
}
