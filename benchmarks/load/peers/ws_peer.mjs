// node's `ws`: the frame is built for each socket by the library.
import { createRequire } from "node:module";
import readline from "node:readline";

const require = createRequire(process.env.WS_ROOT + "/");
const { WebSocketServer } = require("ws");
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false, backlog: 4096 });
server.on("listening", () => console.log(`ready ${server.address().port}`));

function message(size) {
  const head = `{"t":${process.hrtime.bigint().toString().padStart(20, "0")},"p":"`;
  return Buffer.from(head + "x".repeat(size - head.length - 2) + '"}');
}

const cpu = () => { const used = process.cpuUsage(); return (used.user + used.system) / 1e6; };
const clock = () => Number(process.hrtime.bigint()) / 1e9;

async function go(rate, count, burst, size) {
  const started = clock(), used = cpu();
  let due = started;
  for (let round = 0; round < count; round++) {
    for (let b = 0; b < burst; b++) {
      const data = message(size);
      for (const client of server.clients) client.send(data, { binary: false });
    }
    due += 1 / rate;
    await new Promise((done) => setTimeout(done, Math.max(0, (due - clock()) * 1000)));
  }
  console.log(JSON.stringify({ cpu: cpu() - used, wall: clock() - started }));
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const [, rate, count, burst, size] = line.split(" ").map(Number);
  go(rate, count, burst, size);
}).on("close", () => process.exit(0));
