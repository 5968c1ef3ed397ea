// What a bot in node does: fetch to post, `ws` to follow, ping and pong, an orderly close.
import { createRequire } from "node:module";
const require = createRequire(process.cwd() + "/");
const WebSocket = require("ws");
const [api, token, channel] = process.argv.slice(2);
const result = { texts: [], pong: false };
const socket = new WebSocket(`${api.replace("http", "ws")}/client/v1/channels/${channel}/ws?since=0`,
  ["openguild.v1", `bearer.${token}`]);
socket.on("error", (failure) => { console.error(failure); process.exit(1); });
socket.on("pong", () => { result.pong = true; });
socket.on("open", async () => {
  result.subprotocol = socket.protocol;
  socket.ping("x");
  const answer = await fetch(`${api}/client/v1/channels/${channel}/messages`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ content: "from node" }),
  });
  result.status = answer.status;
});
socket.on("message", (data) => {
  result.texts.push(JSON.parse(data).event.content.content);
  if (result.texts.length === 2) setImmediate(() => socket.close(1000));
});
socket.on("close", (code) => {
  console.log(JSON.stringify({ ...result, close: code }));
  process.exit(0);
});
