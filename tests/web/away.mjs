// The page while its gateway is slow or offline: one user in a browser, others with the client. Called by test_page.py.
import assert from "node:assert/strict";
import { Client } from "../../docs/web/openguild.js";
import { complaints, fill, message, open, PASSWORD } from "./browsers.mjs";

const { API, PAGE } = process.env;

async function user(name) {
  const client = new Client(API);
  await client.register(name, PASSWORD);
  await client.login(name, PASSWORD);
  await client.connect();
  return client;
}
const [owner, guest, { browser, page }] = await Promise.all([user("orla"), user("gwen"), open("gwen")]);
const { guild_id: guildId } = await owner.createGuild("Attic");
const { channel_id: channelId } = await owner.createChannel(guildId, "boxes");
const { code } = await owner.createInvite(guildId, { maxUses: 5, expiresInSecs: 3_600 });
await owner.post(channelId, "before");

/** Controls the page's gateway: the frames to hold back, the held frames, and whether it is disconnected. */
const link = { holds: () => false, held: [], isAway: false, end: () => {}, tell: () => {}, isHeld: () => {} };
await page.routeWebSocket(/\/gateway$/, (socket) => {
  if (link.isAway) return void socket.close({ code: 1013 });
  const server = socket.connectToServer();
  let isOver = false; // the page may send before it learns of the end
  link.end = () => ((isOver = true), server.close(), socket.close({ code: 1013 }));
  link.tell = (frame) => socket.send(JSON.stringify(frame));
  socket.onMessage((frame) => {
    const pass = () => isOver || server.send(frame);
    if (!link.holds(JSON.parse(frame))) return void pass();
    link.held.push(pass);
    link.isHeld();
  });
});
const release = () => {
  link.holds = () => false;
  for (const send of link.held.splice(0)) send();
};
const status = (text) => page.getByRole("status").filter({ hasText: text }).waitFor();
/** Do something while the page has no connection. */
async function away(act) {
  link.isAway = true;
  link.end();
  await status(/^Connection lost/);
  await act();
  link.isAway = false;
  await page.evaluate(() => dispatchEvent(new Event("online")));
  await status(/^Connected$/);
}

try {
  // a message arrives after the page of messages was read and before the channel is followed
  await page.goto(`${PAGE}#invite=${code}`);
  await page.getByLabel("Username").fill("gwen");
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Log in" }).click();
  link.holds = ({ type, logs }) => type === "sub" && logs.some(({ log }) => log === `channel:${channelId}`);
  await fill(page, null, null, "Join");
  await message(page, "before").waitFor();
  await owner.post(channelId, "between");
  release();
  await message(page, "between").waitFor();
  await owner.post(channelId, "behind");
  await message(page, "behind").waitFor();
  assert.deepEqual(await page.locator("#messages .text").allTextContents(), ["before", "between", "behind"]);

  // a log that is temporarily unavailable stays visible and resumes
  for (const code of ["unavailable", "restarted"]) {
    for (const log of [`guild:${guildId}`, `channel:${channelId}`]) link.tell({ type: "gone", log, code });
    await owner.post(channelId, `after ${code}`);
    await owner.createChannel(guildId, `made after ${code}`);
    await message(page, `after ${code}`).waitFor();
    await page.getByRole("button", { name: `# made after ${code}` }).waitFor();
  }

  // a member goes offline, and is removed, during an outage
  const third = await user("otto");
  await third.acceptInvite(code);
  const line = page.locator('.member[data-user="otto"]');
  await page.locator('.member.online[data-user="otto"]').waitFor();
  await third.typing(channelId);
  await page.getByText("otto is typing").waitFor();
  await away(async () => {
    const isOffline = new Promise((resolve) => {
      owner.on("presence", ({ userId, status }) => userId === third.userId && status === "offline" && resolve());
    });
    owner.subscribe(`guild:${guildId}`);
    third.close();
    await isOffline;
  });
  await page.locator('.member.offline[data-user="otto"]').waitFor();
  assert.equal(await page.locator("#typing").textContent(), "");
  await away(() => owner.removeMember(guildId, third.userId));
  await line.waitFor({ state: "detached" });

  // a channel and then the guild disappear during an outage
  const results = page.locator("#panel li");
  await page.getByRole("searchbox").fill("between");
  await page.keyboard.press("Enter");
  await results.first().waitFor();
  await owner.post(channelId, "unread?");
  await away(() => owner.deleteChannel(channelId));
  await page.getByText("Choose a channel.", { exact: true }).waitFor();
  assert.deepEqual([await page.locator("#messages > li").count(), await results.count()], [0, 0]);
  await away(() => owner.deleteGuild(guildId));
  await page.getByText("Create a guild, or join one by an invite.").waitFor();
  assert.equal(await page.locator("#channels .item").count(), 0);
  assert.equal(await page.title(), "OpenGuild");

  // a joined guild does not arrive, and the user opens another one
  const { guild_id: ownId } = await guest.createGuild("Own");
  await guest.createChannel(ownId, "mine");
  const { guild_id: loftId } = await owner.createGuild("Loft");
  const invite = await owner.createInvite(loftId, { maxUses: 5, expiresInSecs: 3_600 });
  const isAsked = new Promise((resolve) => (link.isHeld = resolve));
  link.holds = ({ type, logs }) => type === "sub" && logs.some(({ log }) => log === `guild:${loftId}`);
  await page.goto(`${PAGE}#invite=${invite.code}`);
  await fill(page, null, null, "Join");
  await isAsked;
  await owner.removeMember(loftId, guest.userId);
  release();
  await page.locator("#alerts").getByText("The guild is gone again.").waitFor();
  await page.getByRole("heading", { name: "#mine" }).waitFor();
  assert.deepEqual(complaints.filter((complaint) => !/status of 404/.test(complaint)), []); // from the guild that did not arrive
} catch (failure) {
  if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/failed-away.png` });
  console.error(await page.locator("#alerts").allTextContents(), complaints.join("\n"));
  throw failure;
} finally {
  owner.close();
  guest.close();
  await browser.close();
}
