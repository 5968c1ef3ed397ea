// The page on a phone, past midnight, after the end of its session, and while it is left: called by test_page.py.
import assert from "node:assert/strict";
import { Client } from "../../docs/web/openguild.js";
import { complaints, message, open, PASSWORD, write } from "./browsers.mjs";

const { API, PAGE } = process.env;
const NAME = "petra";

const client = new Client(API);
await client.register(NAME, PASSWORD);
await client.login(NAME, PASSWORD);
const { guild_id: guildId } = await client.createGuild("Harbour");
const { channel_id: channelId } = await client.createChannel(guildId, "boats");
await client.post(channelId, "ahoy");

async function logIn(page) {
  await page.getByLabel("Username").fill(NAME);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Log in" }).click();
  await message(page, "ahoy").waitFor();
}

const scenes = {
  async telephone() {
    const { browser, page } = await open("telephone", { viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true });
    try {
      await page.goto(PAGE);
      await logIn(page);
      const text = page.locator("#composer-text");
      await text.tap();
      await page.keyboard.type("one");
      await page.keyboard.press("Enter");
      await page.keyboard.type("two");
      assert.equal(await text.inputValue(), "one\ntwo");
      await page.getByRole("button", { name: "Send" }).tap();
      await message(page, "one\ntwo").waitFor();
      await page.keyboard.type("three"); // the on-screen keyboard has stayed
      assert.equal(await text.inputValue(), "three");
      await page.keyboard.press("Control+Enter");
      await message(page, "three").waitFor();
    } finally {
      await browser.close();
    }
  },
  async midnight() {
    const { browser, page } = await open("midnight", { locale: "en-GB" });
    try {
      await page.clock.install();
      await page.goto(PAGE);
      await logIn(page);
      await page.getByRole("searchbox").fill("ahoy");
      await page.keyboard.press("Enter");
      const times = page.locator("#panel time, #messages time");
      await page.locator("#panel time").waitFor();
      for (const time of await times.allTextContents()) assert.match(time, /^\d\d:\d\d$/);
      await page.clock.setSystemTime(Date.now() + 24 * 3_600_000);
      await page.waitForFunction(() => [...document.querySelectorAll("time")].every((time) => /\d{4}$/.test(time.textContent)));
    } finally {
      await browser.close();
    }
  },
  async session() {
    const { browser, page } = await open("session");
    try {
      let holds = true;
      await page.routeWebSocket(/\/gateway$/, (socket) => {
        const server = socket.connectToServer();
        socket.onMessage((frame) => holds && JSON.parse(frame).type === "post" || server.send(frame));
      });
      await page.goto(PAGE);
      await logIn(page);
      const pending = page.locator("#pending li");
      for (const [index, text] of ["first", "second"].entries()) {
        await write(page, text);
        await pending.nth(index).getByText("sending…").waitFor();
      }
      const { session } = JSON.parse(await page.evaluate(() => sessionStorage.getItem("openguild.session")));
      await client.request("POST", "/sessions/revoke", { body: { refresh_token: session.refresh_token } });
      await page.getByText("Your session has ended.").waitFor();
      holds = false;
      await logIn(page);
      for (const text of ["first", "second"]) await pending.filter({ hasText: text }).getByText("not sent: ").waitFor();
      await pending.filter({ hasText: "first" }).getByRole("button", { name: "Send again" }).click();
      await message(page, "first").waitFor();
      await pending.filter({ hasText: "second" }).getByRole("button", { name: "Edit" }).click();
      assert.equal(await page.locator("#composer-text").inputValue(), "second");
      await page.getByRole("button", { name: "Log out" }).click();
      await logIn(page);
      const left = [await pending.count(), await page.locator("#composer-text").inputValue()];
      assert.deepEqual(left, [0, ""], "nothing is left to the next one");
    } finally {
      await browser.close();
    }
  },
  async leaving() {
    const { browser, page } = await open("leaving");
    try {
      const tools = await page.context().newCDPSession(page);
      const listeners = async () => {
        const counts = await Promise.all(["window", "document"].map(async (expression) => {
          const { result } = await tools.send("Runtime.evaluate", { expression });
          return (await tools.send("DOMDebugger.getEventListeners", { objectId: result.objectId })).listeners.length;
        }));
        return counts[0] + counts[1];
      };
      const leave = () => page.getByRole("button", { name: "Log out" }).click();
      await page.goto(PAGE);
      await logIn(page);
      const before = await listeners();
      for (const action of ["by the page", "by the user"]) {
        let ask = () => {};
        const isAsked = new Promise((resolve) => (ask = resolve));
        await page.route("**/presence", () => ask()); // never answered
        await page.route("**/messages?*", () => ask());
        if (action === "by the page") await page.reload();
        else await page.getByRole("button", { name: "# boats" }).click();
        await isAsked;
        await leave();
        await page.getByLabel("Username").waitFor();
        await page.evaluate(() => new Promise((resolve) => setTimeout(resolve))); // pending requests have failed by now
        assert.equal(await page.locator("#alerts").textContent(), "", `asked for ${action}`);
        await page.unrouteAll();
        await logIn(page);
      }
      assert.equal(await listeners(), before, "of a former login none is left");
    } finally {
      await browser.close();
    }
  },
};

try {
  for (const [name, scene] of Object.entries(scenes)) {
    console.error(`scene: ${name}`);
    await scene();
  }
  assert.deepEqual(complaints, []);
} finally {
  client.close();
}
