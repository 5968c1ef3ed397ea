/** Keys by which a repeated request is recognised (PROTOCOL 3.8, 7.5). */

/** A key that nobody else uses: 128 random bits. */
export function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
