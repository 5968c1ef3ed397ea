/** The errors of this client. Tell them apart by `instanceof` and `code`; messages are for people. */

/** The base class of all errors of this client. */
export class OpenGuildError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = new.target.name;
  }
}

/** A member of a request that the server refused.
 * @typedef {{field: string, message: string}} Problem */

/** The server refused a request or a command (PROTOCOL 3.6): nothing was changed. */
export class ApiError extends OpenGuildError {
  /**
   * @param {number} status the HTTP status; over the gateway, the status of the code
   * @param {string} code from the table of errors in docs/api.md
   * @param {string} text one sentence for people
   * @param {{retryAfter?: number, requestId?: string, details?: Problem[], mayBeDone?: boolean}} [more]
   */
  constructor(status, code, text, { retryAfter, requestId = "", details = [], mayBeDone = false } = {}) {
    const problems = details.map((problem) => `${problem.field} ${problem.message}`.trim()).join("; ");
    super(`${status} ${code}: ${text}${problems && ` (${problems})`}`);
    this.status = status;
    this.code = code;
    this.text = text;
    this.retryAfter = retryAfter; // the seconds that the server advises to wait, if any
    this.requestId = requestId;
    this.details = details;
    this.mayBeDone = mayBeDone; // about one attempt; after the last attempt the caller gets OutcomeUnknown instead
  }
}

/**
 * No answer came in time, or the answer leaves it open whether the server has carried out the request.
 * A request with a `key` can be sent again with it, at any time: it is stored once.
 */
export class OutcomeUnknown extends OpenGuildError {
  /**
   * @param {string} reason
   * @param {string} [key] of a command or a post
   */
  constructor(reason, key) {
    super(reason);
    this.key = key;
  }
}

/** The gateway has ended for good: the caller closed it, or the server did with a final close code (PROTOCOL 15.8). */
export class ConnectionEnded extends OpenGuildError {
  /**
   * @param {number | null} code the close code; null if the caller closed the gateway
   * @param {string} reason
   */
  constructor(code, reason) {
    super(code === null ? `the connection has ended: ${reason}` : `the connection has ended with ${code}: ${reason}`);
    this.code = code;
    this.reason = reason;
  }
}

/**
 * A log cannot be followed further (PROTOCOL 15.3.7). After `restarted`, discard what was read of it and read it again.
 */
export class LogGone extends OpenGuildError {
  /**
   * @param {string} log
   * @param {string} code `access_lost`, `deleted` or `restarted`
   */
  constructor(log, code) {
    super(`${log} is gone: ${code}`);
    this.log = log;
    this.code = code;
  }
}

/** The HTTP status of each error code, for refusals over the gateway (docs/api.md, Errors).
 * @type {Record<string, number>} */
export const STATUS_OF_CODE = {
  invalid_request: 400, invalid_json: 400, validation_error: 400, invalid_since: 400, search_too_wide: 400,
  invalid_handshake: 400, unauthorized: 401, invalid_credentials: 401, invalid_refresh_token: 401, forbidden: 403,
  timed_out: 403, banned: 403,
  origin_not_allowed: 403, sender_mismatch: 403, presence_off: 403, wrong_password: 403, registration_closed: 403, not_found: 404,
  method_not_allowed: 405, request_timeout: 408, username_taken: 409, nonce_reused: 409, last_owner: 409,
  message_redacted: 409, limit_reached: 409, invite_expired: 410, payload_too_large: 413, uri_too_long: 414,
  unsupported_media_type: 415, expectation_failed: 417, upgrade_required: 426, message_rate_limit: 429,
  ip_rate_limit: 429, write_rate_limit: 429, typing_rate_limit: 429, read_rate_limit: 429, search_rate_limit: 429,
  query_rate_limit: 429, owner_read_rate_limit: 429, login_rate_limit: 429,
  refresh_rate_limit: 429, connection_limit: 429, headers_too_large: 431, server_error: 500, not_implemented: 501,
  database_unavailable: 503, overloaded: 503, draining: 503, http_version_not_supported: 505,
  signature_invalid: 401, server_denied: 403, server_quarantined: 403, id_taken: 409, server_rate_limit: 429,
  guild_moved: 421, guild_offline: 503, keys_unreadable: 503,
};

/**
 * Return whether a change that was refused with this code may have been made all the same (PROTOCOL 3.6.3).
 * @param {string} code
 * @param {number} [status]
 */
export function leavesOpen(code, status = STATUS_OF_CODE[code] ?? 400) {
  return status >= 500 && !["not_implemented", "overloaded", "draining"].includes(code);
}

/**
 * Return whether a status means overload, an outage or a drain, and not a fault of the request or a feature that the server lacks.
 * @param {number} status
 */
export function isTemporary(status) {
  return status === 408 || status === 429 || (status >= 500 && status !== 501);
}
