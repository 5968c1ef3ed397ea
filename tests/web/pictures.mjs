// Draws docs/page.png and docs/page-phone.png from a new server: `make run` with an empty DATA_DIR, `make web`, and then
// NODE_MODULES=$PWD/build/npm/node_modules CHROMIUM=/usr/bin/chromium API=http://127.0.0.1:8080 PAGE=http://127.0.0.1:8081 node --experimental-websocket tests/web/pictures.mjs
import { Client } from "../../docs/web/openguild.js";
import { message, open, PASSWORD } from "./browsers.mjs";

const { API, PAGE } = process.env;
async function user(name) {
  const client = new Client(API);
  await client.register(name, PASSWORD);
  await client.login(name, PASSWORD);
  await client.connect();
  return client;
}
const [alice, bob, carol, dave] = await Promise.all(["alice", "bob", "carol", "dave"].map(user));
const { guild_id: guild } = await alice.createGuild("Tea room");
const { guild_id: club } = await alice.createGuild("Book club");
await alice.createChannel(club, "general");
const general = (await alice.createChannel(guild, "general", { topic: "What is in your cup today?" })).channel_id;
const recipes = (await alice.createChannel(guild, "recipes")).channel_id;
const random = (await alice.createChannel(guild, "random")).channel_id;
const { code } = await alice.createInvite(guild);
for (const other of [bob, carol, dave]) await other.acceptInvite(code);
await alice.setRole(guild, carol.userId, "moderator");
await bob.post(general, "Good morning! First flush Darjeeling for me.");
const asked = await carol.post(general, "Does anybody have a good recipe for scones?");
const answer = await alice.post(general, "Yes: 250 g flour, 60 g cold butter, 150 ml buttermilk.\nBake them at 220 °C for 12 minutes.", { replyTo: asked.event_id });
const salt = await bob.post(general, "I would add salt.");
await bob.edit(general, salt.event_id, "I would add a pinch of salt.");
for (const [who, emoji] of [[bob, "❤️"], [carol, "❤️"], [carol, "😋"]]) await who.react(general, answer.event_id, emoji);
await alice.pin(general, answer.event_id);
const mistake = await carol.post(general, "Has anyone seen my glasses?");
await carol.redact(general, mistake.event_id);
await dave.post(general, "BUY GOLD NOW");
await alice.timeOut(guild, dave.userId, 3_600, { reason: "advertising" });
await dave.close();
await carol.setPresence("idle");

async function picture(file, viewport, options, pose) {
  const { browser, page } = await open("alice", { viewport, reducedMotion: "reduce", ...options });
  try {
    await page.goto(PAGE);
    await page.getByLabel("Username").fill("alice");
    await page.getByLabel("Password").fill(PASSWORD);
    await page.getByRole("button", { name: "Log in" }).click();
    await message(page, "a pinch of salt").waitFor();
    await page.mouse.move(0, 0);
    await page.getByRole("heading", { name: "#general" }).focus();
    await pose(page);
    await bob.typing(general);
    await page.getByText("bob is typing").waitFor();
    await page.screenshot({ path: file });
  } finally {
    await browser.close();
  }
}
await picture("docs/page.png", { width: 1100, height: 640 }, {}, async (page) => {
  await bob.post(recipes, "Lemon curd");
  await carol.post(random, `<@${alice.userId}> is the kettle on?`);
  await page.locator(".badge.mentions").waitFor();
});
await picture("docs/page-phone.png", { width: 390, height: 780 }, { isMobile: true, hasTouch: true }, (page) => message(page, "a pinch of salt").tap());
for (const each of [alice, bob, carol]) await each.close();
process.exit(0);
