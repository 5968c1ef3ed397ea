/** The token pair of one login: kept, and refreshed before it ends or when it is refused (PROTOCOL 4.6). */

import { ApiError, isTemporary, OpenGuildError, OutcomeUnknown } from "./errors.js";
import { REFRESH_AHEAD_MS } from "./policy.js";

/** Protect it like a password; the next refresh replaces it.
 * @typedef {{access_token: string, refresh_token: string}} StoredSession */
/** @typedef {{access_token: string, access_expires_at: string, refresh_token: string}} TokenPair */

export class SessionKeeper {
  /** @type {StoredSession | null} */
  #pair = null;
  #refreshAt = Infinity; // by performance.now(); unknown for a pair from storage, which is refreshed after a 401
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

  /** The pair, for storage; null: nobody is logged in. */
  get stored() {
    return this.#pair;
  }

  /** Whose session it is, or was; null: not known. */
  get userId() {
    return this.#userId;
  }

  /** @param {StoredSession} stored */
  restore(stored) {
    this.#pair = { access_token: stored.access_token, refresh_token: stored.refresh_token };
    this.#userId = payloadOf(stored.access_token).user_id ?? null;
    this.#refreshAt = Infinity;
  }

  /** Keep what a login or a refresh gave. @param {TokenPair} pair */
  keep(pair) {
    this.#pair = { access_token: pair.access_token, refresh_token: pair.refresh_token };
    this.#userId = payloadOf(pair.access_token).user_id ?? null;
    const lifeMs = lifetimeMs(pair);
    this.#refreshAt = lifeMs > 0 ? performance.now() + lifeMs - Math.min(REFRESH_AHEAD_MS, lifeMs / 10) : Infinity;
    this.onChange(this.#pair);
  }

  /** There is no session any more. */
  forget() {
    if (this.#pair === null) return;
    this.#pair = null;
    this.onChange(null);
  }

  /**
   * Return an access token that is good for a while and is not `refused`. Concurrent callers share one refresh.
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

  /** Wait until no refresh runs: it would replace the token that is to be revoked. */
  async settled() {
    await this.#refreshing?.done.catch(() => {}); // whoever asked for it is told
  }

  /** A login meanwhile makes the answer one of a session that has ended. @param {StoredSession} pair */
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

/** Return the tokens of an answer. Throws OutcomeUnknown where there are none. @param {any} body @returns {TokenPair} */
export function pairOf(body) {
  if (typeof body?.access_token === "string" && typeof body.refresh_token === "string") return body;
  throw new OutcomeUnknown("the answer has no tokens");
}

/**
 * Return the life of the access token by the server's clock, as this machine's may be wrong; 0 if unknown.
 * @param {TokenPair} pair
 */
function lifetimeMs(pair) {
  return Math.max(Date.parse(pair.access_expires_at) - Date.parse(payloadOf(pair.access_token).issued_at ?? ""), 0) || 0;
}

/**
 * Return what a token says of itself; nothing where it is of another form.
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
