/**
 * A client of OpenGuild for browsers and Node 20: no dependencies, no build.
 *
 *     const client = new Client("http://127.0.0.1:8080");
 *     await client.login("alice", "correct horse");
 *     client.on("message", ({ log, event }) => console.log(log, event.content.author.username, event.content.content));
 *     await client.followAll();
 *
 * docs/client-js.md is its guide, with its guarantees.
 */

export { Client } from "./openguild/client.js";
export { ApiError, ConnectionEnded, LogGone, OpenGuildError, OutcomeUnknown } from "./openguild/errors.js";
export { foldMessages } from "./openguild/fold.js";
