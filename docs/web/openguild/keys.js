/** Idempotency keys, by which the server recognises a repeated request (PROTOCOL 3.8, 7.5). */

/** Return a unique key: 128 random bits in hexadecimal. */
export function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
