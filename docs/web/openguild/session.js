/** The token pair of one login: kept, and refreshed before it ends or when it is refused (PROTOCOL 4.6). */

import { ApiError, isTemporary, OpenGuildError } from "./errors.js";
import { REFRESH_AHEAD_MS } from "./policy.js";

/** Protect it like a password; the next refresh replaces it.
 * @typedef {{access_token: string, refresh_token: string}} StoredSession */
/** @typedef {{access_token: string, access_expires_at: string, refresh_token: string}} TokenPair */

export class SessionKeeper {
  /** @type {StoredSession | null} */
  #pair = null;
  #refreshAt = Infinity; // by performance.now(); unknown for a pair from storage, which is refreshed after a 401
  /** @type {Promise<void> | null} */
  #refreshing = null;

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

  /** @param {StoredSession} stored */
  restore(stored) {
    this.#pair = { access_token: stored.access_token, refresh_token: stored.refresh_token };
    this.#refreshAt = Infinity;
  }

  /** Keep what a login or a refresh gave. @param {TokenPair} pair */
  keep(pair) {
    this.#pair = { access_token: pair.access_token, refresh_token: pair.refresh_token };
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
      this.#refreshing ??= this.#refresh(pair).finally(() => (this.#refreshing = null));
      await this.#refreshing;
    }
    return this.#mustHave().access_token;
  }

  /** Wait until no refresh runs: it would replace the token that is to be revoked. */
  async settled() {
    await this.#refreshing?.catch(() => {}); // whoever asked for it is told
  }

  /** @param {StoredSession} pair */
  async #refresh(pair) {
    try {
      this.keep(await this.exchange(pair.refresh_token));
    } catch (failure) {
      if (failure instanceof ApiError && !isTemporary(failure.status)) this.forget(); // it has ended
      throw failure;
    }
  }

  #mustHave() {
    if (this.#pair === null) throw new OpenGuildError("log in first");
    return this.#pair;
  }
}

/**
 * Return the life of the access token by the server's clock, as this machine's may be wrong; 0 if unknown.
 * @param {TokenPair} pair
 */
function lifetimeMs(pair) {
  try {
    const payload = JSON.parse(atob((pair.access_token.split(".")[0] ?? "").replaceAll("-", "+").replaceAll("_", "/")));
    return Math.max(Date.parse(pair.access_expires_at) - Date.parse(payload.issued_at), 0) || 0;
  } catch (fault) {
    if (fault instanceof SyntaxError || fault instanceof DOMException) return 0;
    throw fault;
  }
}
