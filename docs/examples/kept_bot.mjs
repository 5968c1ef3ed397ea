// Answers each "ping" once, including missed ones: node --experimental-websocket docs/examples/kept_bot.mjs FILE URL NAME PASSWORD [INVITE]
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { ApiError, Client } from "../web/openguild.js";

const [file, url, name, password, invite] = process.argv.slice(2);
const kept = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : null;
const client = kept === null ? new Client(url) : Client.fromJSON(kept);
let positions = kept?.positions ?? {};
let answering = 0;

function save() {
  const now = client.toJSON();
  if (answering === 0) positions = now.positions; // else the stored positions would be ahead of the answers
  writeFileSync(`${file}.new`, JSON.stringify({ ...now, positions }), { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

client.on("session", save); // each refresh replaces the tokens
client.on("message", async ({ event }) => {
  if (event.content.content !== "ping" || event.sender === client.userId) return;
  answering += 1;
  try {
    await client.post(event.room_id, `pong, ${event.content.author.username}`, { replyTo: event.event_id, key: event.event_id });
  } catch (failure) {
    if (!(failure instanceof ApiError)) throw failure; // the outcome is unknown: the program ends, and the next run repeats the answer
    console.error(`no answer to ${event.event_id}: ${failure.message}`);
  }
  answering -= 1;
  save();
});
if (!client.isLoggedIn) await client.login(name, password);
await client.followAll();
save();
if (invite) await client.acceptInvite(invite);
