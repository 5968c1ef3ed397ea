// A bot that answers "ping": node --experimental-websocket docs/examples/bot.mjs URL NAME PASSWORD [INVITE]
import { Client } from "../web/openguild.js";

const [url, name, password, invite] = process.argv.slice(2);
const client = new Client(url);
await client.login(name, password);
client.on("message", async ({ event }) => {
  if (event.content.content !== "ping" || event.sender === client.userId) return;
  await client.post(event.room_id, `pong, ${event.content.author.username}`, { replyTo: event.event_id });
});
await client.followAll();
if (invite) await client.acceptInvite(invite);
