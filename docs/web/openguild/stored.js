/** Reads the result of `Client.toJSON` back. */

import { OpenGuildError } from "./errors.js";

/** @typedef {import("./types.js").ResumePosition} ResumePosition */

/** @param {unknown} value @returns {value is Record<string, unknown>} */
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** @param {unknown} place @returns {place is [number, number]} */
const isPair = (place) => Array.isArray(place) && place.length === 2 && place.every((number) => Number.isSafeInteger(number) && number >= 0);

/**
 * Return the place up to which each log was handled. Throws OpenGuildError for anything but a result of `toJSON`.
 * @param {import("./client.js").StoredClient} stored
 */
export function placesOf(stored) {
  /** @type {Map<string, ResumePosition>} */
  const places = new Map();
  const { url, device_id, session, positions } = isObject(stored) ? stored : /** @type {Record<string, unknown>} */ ({});
  const isSession = session === null || (isObject(session) && typeof session["access_token"] === "string" && typeof session["refresh_token"] === "string");
  if (typeof url !== "string" || typeof device_id !== "string" || !isSession || !isObject(positions)) throw notStored();
  for (const [log, place] of Object.entries(positions)) {
    if (!isPair(place)) throw notStored();
    places.set(log, { epoch: place[0], sequence: place[1] });
  }
  return places;
}

const notStored = () => new OpenGuildError("this is not what a client's toJSON returned");
