/** Which texts can be sent. */

const KEY = /^[!-~]{1,64}$/; // PROTOCOL 3.8.1

export const LONE_SURROGATE = "a text holds a lone surrogate";
const HALF = /\p{Surrogate}/u; // with `u` a pair is one character, which is none

/**
 * Whether all texts in a value of JSON are Unicode. Half of an emoji, as a text that was cut has it, is not, and no server takes it.
 * @param {unknown} value
 * @returns {boolean}
 */
export function isWellFormed(value) {
  if (typeof value === "string") return !HALF.test(value);
  if (typeof value !== "object" || value === null) return true;
  return Object.entries(value).every(([name, member]) => isWellFormed(name) && isWellFormed(member));
}

/** Encode a segment of a path. What is not Unicode stays as it is, for `Http.send` to refuse. @param {string} text */
export const encodeSegment = (text) => (isWellFormed(text) ? encodeURIComponent(text) : text);

/** Whether a text can be the key of a request. @param {string} text */
export const isKey = (text) => KEY.test(text);
