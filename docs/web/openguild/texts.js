/** Checks of texts before they are sent. */

const KEY = /^[!-~]{1,64}$/; // PROTOCOL 3.8.1

export const LONE_SURROGATE = "a text contains a lone surrogate";
const HALF = /\p{Surrogate}/u; // with `u` a pair is one character and does not match

/**
 * Return whether all texts in a JSON value are valid Unicode. A lone surrogate, such as half of a cut emoji, is not; the server
 * refuses it.
 * @param {unknown} value
 * @returns {boolean}
 */
export function isWellFormed(value) {
  if (typeof value === "string") return !HALF.test(value);
  if (typeof value !== "object" || value === null) return true;
  return Object.entries(value).every(([name, member]) => isWellFormed(name) && isWellFormed(member));
}

/** Encode a segment of a path. Invalid Unicode stays as it is, for `Http.send` to refuse. @param {string} text */
export const encodeSegment = (text) => (isWellFormed(text) ? encodeURIComponent(text) : text);

/** Return whether a text can be an idempotency key. @param {string} text */
export const isKey = (text) => KEY.test(text);
