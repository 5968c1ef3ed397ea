// The page at a limit of the server, and while the server does not answer: called by test_page.py.
import assert from "node:assert/strict";
import { Client } from "../../docs/web/openguild.js";
import { complaints, fill, message, open, PASSWORD, write } from "./browsers.mjs";

const { API, PAGE } = process.env;
const NAME = "lena";

const client = new Client(API);
await client.register(NAME, PASSWORD);
await client.login(NAME, PASSWORD);
const { guild_id: guildId } = await client.createGuild("Library");
await client.createChannel(guildId, "novels");
const { channel_id: poemsId } = await client.createChannel(guildId, "poems");
const log = `channel:${poemsId}`;
const { browser, page } = await open(NAME);

// a stand-in for 1,000 logs: the server refuses the log of one channel until the page has given up another log
let isFull = true;
await page.routeWebSocket(/\/gateway$/, (socket) => {
  const server = socket.connectToServer();
  socket.onMessage((text) => {
    const frame = JSON.parse(text);
    if (frame.type === "unsub") isFull = false;
    if (frame.type !== "sub" || !isFull || !frame.logs.some((line) => line.log === log)) return server.send(text);
    socket.send(JSON.stringify({ type: "err", ref: frame.ref, log, code: "limit_reached", message: "no more logs" }));
    frame.logs = frame.logs.filter((line) => line.log !== log);
    if (frame.logs.length > 0) server.send(JSON.stringify(frame));
  });
});

async function logIn() {
  await page.getByLabel("Username").fill(NAME);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: "#novels" }).waitFor();
}

try {
  // an opened channel is followed, though it is one too many
  await page.goto(PAGE);
  await logIn();
  await page.getByRole("button", { name: "# poems" }).click();
  await page.getByRole("heading", { name: "#poems" }).waitFor();
  await write(page, "a sonnet");
  await message(page, "a sonnet").waitFor();
  assert.equal(await page.locator("#pending li").count(), 0, "nothing is being sent");
  await client.post(poemsId, "an ode");
  await message(page, "an ode").waitFor();

  // who cannot be logged out on the server can leave the tab, and leaves nothing behind
  const logOut = page.getByRole("button", { name: "Log out", exact: true }).first();
  const stored = () => page.evaluate(() => Object.values(sessionStorage).join());
  await page.locator("#composer-text").fill("a secret");
  const refusal = { error: "overloaded", message: "come back in an hour", retry_after_ms: 3_600_000 };
  await page.route("**/sessions/revoke", (route) => route.fulfill({ status: 503, json: refusal }));
  await logOut.click();
  await page.getByRole("heading", { name: "Log out of this tab only?" }).waitFor();
  await fill(page, null, null, "Cancel");
  await message(page, "an ode").waitFor();
  await logOut.click();
  await fill(page, null, null, "Log out");
  await page.getByLabel("Username").waitFor();
  await page.reload();
  await page.getByLabel("Username").waitFor();
  assert.doesNotMatch(await stored(), /token|secret/);
  complaints.splice(0); // the browser logs each 503
  await logIn();
  assert.equal(await page.locator("#composer-text").inputValue(), "");
  assert.deepEqual(complaints, []);
} catch (failure) {
  if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/failed-limits.png` });
  console.error(await page.locator("#alerts").allTextContents(), complaints.join("\n"));
  throw failure;
} finally {
  client.close();
  await browser.close();
}
