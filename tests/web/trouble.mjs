// The page in trouble: no storage, slow or failed answers, a gateway that has ended. Called by test_page.py.
import assert from "node:assert/strict";
import { Client } from "../../docs/web/openguild.js";
import { act, complaints, message, open, PASSWORD, write } from "./browsers.mjs";

const { API, PAGE } = process.env;
const NAME = "tilda";

const client = new Client(API);
await client.register(NAME, PASSWORD);
await client.login(NAME, PASSWORD);
const { guild_id: guildId } = await client.createGuild("Shed");
const { channel_id: toolsId } = await client.createChannel(guildId, "tools");
const { channel_id: nailsId } = await client.createChannel(guildId, "nails");
const { guild_id: barnId } = await client.createGuild("Barn");
await client.createChannel(barnId, "hay");
await client.post(toolsId, "a hammer");
for (let number = 0; number < 52; number += 1) await client.post(nailsId, `nail ${number}.`);

async function logIn(page) {
  await page.getByLabel("Username").fill(NAME);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Log in" }).click();
  await message(page, "a hammer").waitFor();
}
const KEPT = "openguild.session";
let session = "";
/** Open the page with the session of an earlier scene: logins are limited. */
async function resume(page) {
  await page.addInitScript(([name, kept]) => sessionStorage.getItem(name) ?? sessionStorage.setItem(name, kept), [KEPT, session]);
  await page.goto(PAGE);
  await message(page, "a hammer").waitFor();
}
const text = (page) => page.locator("#composer-text");
const go = (page, name) => page.getByRole("button", { name, exact: true }).click();
/** Hold the answers to requests that match until `release` is called; `isAsked` resolves with the first request. */
async function hold(page, pattern) {
  let [release, ask] = [() => {}, () => {}];
  const [isReleased, isAsked] = [new Promise((resolve) => (release = resolve)), new Promise((resolve) => (ask = resolve))];
  await page.route(pattern, async (route) => {
    const response = await route.fetch();
    ask();
    await isReleased;
    await route.fulfill({ response });
  });
  return { release, isAsked };
}

const scenes = {
  async "storage is forbidden"(page) {
    await page.addInitScript(() => {
      const get = () => { throw new DOMException("denied", "SecurityError"); };
      for (const name of ["sessionStorage", "localStorage"]) Object.defineProperty(window, name, { get });
    });
    await page.goto(PAGE);
    await logIn(page);
  },
  async "storage is full"(page) {
    await page.goto(PAGE);
    await page.evaluate(() => {
      for (let size = 1 << 20; size > 0; size >>= 1) {
        try {
          for (let number = 0; ; number += 1) sessionStorage.setItem(`${size} ${number}`, "x".repeat(size));
        } catch (failure) {
          if (failure.name !== "QuotaExceededError") throw failure;
        }
      }
    });
    await logIn(page);
    await client.post(toolsId, "a full box");
    await message(page, "a full box").waitFor();
  },
  async "the settings cannot be read"(page) {
    await page.route("**/settings.json", (route) => route.fulfill({ status: 502, body: "" }));
    await page.goto(PAGE);
    await page.getByText("The settings of this page could not be read: HTTP 502").waitFor();
    await page.unrouteAll();
    await page.keyboard.press("Enter");
    await logIn(page);
    session = await page.evaluate((name) => sessionStorage.getItem(name), KEPT);
    complaints.splice(0); // the browser logs the 502
  },
  async "a hidden tab is discarded"(page) {
    await resume(page);
    await text(page).fill("a long thought");
    const stored = (isHidden) => page.evaluate((isHidden) => {
      Object.defineProperty(document, "hidden", { get: () => isHidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
      return sessionStorage.getItem("openguild.written");
    }, isHidden);
    assert.match(await stored(true), /a long thought/);
    assert.equal(await stored(false), null, "it would be stale when it is taken up");
  },
  async "the gateway has ended for good"(page) {
    let end = () => {};
    await page.routeWebSocket(/\/gateway$/, (socket) => {
      const server = socket.connectToServer();
      end = () => (server.close(), socket.close({ code: 1000 }));
    });
    await resume(page);
    await text(page).fill("not lost");
    end();
    await page.getByRole("button", { name: "Load the page again" }).click();
    await page.getByRole("status").filter({ hasText: /^Connected$/ }).waitFor();
    await message(page, "a hammer").waitFor();
    assert.equal(await text(page).inputValue(), "not lost");
  },
  async "messages that could not be read are read after a reconnection"(page) {
    let cut = () => {};
    await page.routeWebSocket(/\/gateway$/, (socket) => {
      const server = socket.connectToServer();
      cut = () => (server.close(), socket.close({ code: 1013 }));
    });
    await resume(page);
    await page.route("**/messages?*", (route) => route.fulfill({ status: 409, contentType: "application/json", body: "{}" }));
    await go(page, "# nails");
    await page.getByText("The messages could not be read.").waitFor();
    await page.unrouteAll();
    cut();
    await message(page, "nail 51.").waitFor();
    complaints.splice(0); // the browser logs the 409
  },
  async "an invite is of the guild that was open"(page) {
    await resume(page);
    const { release, isAsked } = await hold(page, "**/invites");
    await go(page, "Invite");
    await isAsked;
    await go(page, "Barn");
    await page.getByRole("heading", { name: "#hay" }).waitFor();
    release();
    await page.getByRole("heading", { name: "Invite to Shed" }).waitFor();
  },
  async "late pins leave the focus to the user"(page) {
    await resume(page);
    const { release, isAsked } = await hold(page, "**/pins*");
    await go(page, "Pins");
    await isAsked;
    await text(page).click();
    await page.keyboard.type("hello wo");
    release();
    await page.getByRole("heading", { name: "Pinned messages" }).waitFor();
    await page.keyboard.type("rld");
    assert.equal(await text(page).inputValue(), "hello world");
  },
  async "an edit of a message that is not shown stays an edit"(page) {
    let isRefused = true;
    await page.routeWebSocket(/\/gateway$/, (socket) => {
      const server = socket.connectToServer();
      socket.onMessage((frame) => {
        const { type, ref } = JSON.parse(frame);
        if (type === "edit" && isRefused) socket.send(JSON.stringify({ type: "err", ref, code: "forbidden", message: "not now" }));
        else server.send(frame);
      });
    });
    await resume(page);
    await go(page, "# nails");
    await page.locator("#older").click();
    await act(page, "nail 0.", "Edit");
    await text(page).fill("a screw");
    await page.keyboard.press("Enter");
    await page.locator("#pending").getByText("not sent: not now").waitFor();
    isRefused = false;
    await go(page, "# tools");
    await message(page, "a hammer").waitFor();
    await go(page, "# nails");
    await message(page, "nail 51.").waitFor();
    await page.locator("#pending").getByRole("button", { name: "Edit" }).click();
    await page.locator("#composer-context").getByText("Editing: ").waitFor();
    await write(page, "a screw");
    await page.locator("#pending li").first().waitFor({ state: "detached" });
    const isEdited = async () => (await client.messages(nailsId, { after: 0, limit: 1 })).messages[0].content === "a screw";
    while (!(await isEdited()));
    assert.equal((await client.messages(nailsId, { limit: 1 })).messages[0].content, "nail 51.");
  },
  async "many dots after an @ are sent at once"(page) {
    await resume(page);
    await text(page).evaluate((element) => (element.value = `@${".".repeat(100_000)}x`));
    const ms = await page.evaluate(() => {
      const begin = performance.now();
      document.querySelector("form.composer").requestSubmit();
      return performance.now() - begin;
    });
    await page.locator("#alerts").getByText("at most 4000 characters").waitFor();
    assert.ok(ms < 1_000, `${ms} ms`); // quadratic time: 22 s
  },
};

try {
  for (const [name, scene] of Object.entries(scenes)) {
    console.error(`scene: ${name}`);
    const { browser, page } = await open(name);
    try {
      await scene(page);
      assert.deepEqual(complaints, []);
    } catch (failure) {
      if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/failed-trouble.png` });
      throw failure;
    } finally {
      await browser.close();
    }
  }
} finally {
  client.close();
}
