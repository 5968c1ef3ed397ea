/** Which texts can be sent. */

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
