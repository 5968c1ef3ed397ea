// Everyday use of the page, one user in a browser and the others with the client: called by test_page.py.
import assert from "node:assert/strict";
import { Client } from "../../docs/web/openguild.js";
import { act, choose, complaints, fill, message, open, PASSWORD, write } from "./browsers.mjs";

const { API, PAGE } = process.env;
const [OLGA, GUSTAV] = ["olga", "gustav"].map((name) => name + (process.env.SUFFIX ?? ""));

async function user(name) {
  const client = new Client(API);
  await client.register(name, PASSWORD);
  await client.login(name, PASSWORD);
  await client.connect();
  return client;
}
const [owner, guest, { browser, page }] = await Promise.all([user(OLGA), user(GUSTAV), open(GUSTAV)]);
async function guildOf(name, ...channels) {
  const { guild_id: id } = await owner.createGuild(name);
  const ids = [];
  for (const channel of channels) ids.push((await owner.createChannel(id, channel)).channel_id);
  const { code } = await owner.createInvite(id, { maxUses: 5, expiresInSecs: 3_600 });
  return { id, code, ids };
}
const [garden, cellar] = await Promise.all([guildOf("Garden", "roses", "tulips", "weeds"), guildOf("Cellar", "wine")]);
const [roses, tulips, weeds] = garden.ids;
await guest.acceptInvite(garden.code);
await owner.post(roses, "Which colour?");
await guest.post(roses, "Red ones");
await Promise.all(Array.from({ length: 60 }, (_, number) => owner.post(tulips, `bulb ${number}.`)));

const text = page.locator("#composer-text");
const context = page.locator("#composer-context");
const alerts = page.locator("#alerts");
/** Evaluate until the result is true. */
const until = (condition, argument) => page.waitForFunction(condition, argument);
async function go(name) {
  await page.getByRole("button", { name: `# ${name}` }).click();
  await page.getByRole("heading", { name: `#${name}` }).waitFor();
}
async function logIn() {
  await page.getByLabel("Username").fill(GUSTAV);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Log in" }).click();
  await message(page, "Red ones").waitFor();
}
async function role(name) {
  await owner.setRole(garden.id, guest.userId, name);
  await page.locator(`.member[data-user="${GUSTAV}"] .role`, { hasText: name }).waitFor();
}

try {
  await page.goto(PAGE);
  await logIn();

  // users see their own presence
  for (const [choice, status] of [["Idle", "idle"], ["Invisible", "offline"], ["Online", "online"]]) {
    await page.getByLabel("How you appear").selectOption(choice);
    await page.locator(`.member.${status}[data-user="${GUSTAV}"]`).waitFor();
  }

  // a draft belongs to its channel, and an edit does not replace it
  await text.fill("thorns, and");
  await act(page, "Red ones", "Edit");
  await go("tulips");
  assert.equal(await text.inputValue(), "", "the edit stays with its message");
  await text.fill("on bulbs");
  await go("roses");
  assert.equal(await text.inputValue(), "Red ones");
  await page.keyboard.press("Escape");
  assert.equal(await text.inputValue(), "thorns, and");
  await text.fill("");

  // an edit needs a text
  await act(page, "Red ones", "Edit");
  await text.fill("  ");
  await page.keyboard.press("Enter");
  await alerts.getByText("A message cannot be empty. To remove it, delete it.").waitFor();
  await alerts.getByRole("button", { name: "Dismiss" }).click();
  await text.focus();
  await page.keyboard.press("Escape");

  // a reload restores the open channel, the presence and the draft
  await go("tulips");
  await act(page, "bulb 59.", "Reply");
  await text.fill("how deep?");
  await page.getByLabel("How you appear").selectOption("Invisible");
  await page.locator(`.member.offline[data-user="${GUSTAV}"]`).waitFor();
  await page.reload();
  await page.getByRole("heading", { name: "#tulips" }).waitFor();
  await context.getByText("bulb 59.").waitFor();
  assert.equal(await text.inputValue(), "how deep?");
  assert.equal(await page.getByLabel("How you appear").inputValue(), "offline");
  await page.getByLabel("How you appear").selectOption("Online");
  await text.press("Escape");
  await text.fill("on bulbs");
  await go("roses");

  // a message is redacted while a reply to it is written, and while it is in search results
  await page.getByRole("searchbox").fill("colour");
  await page.keyboard.press("Enter");
  await page.locator("#panel").getByText("Which colour?").waitFor();
  await act(page, "Which colour?", "Reply");
  const [question] = (await owner.messages(roses)).messages;
  await owner.redact(roses, question.event_id);
  await context.getByText("deleted").waitFor();
  assert.ok(!(await page.content()).includes("Which colour?"));
  await page.keyboard.press("Escape");

  // a message is redacted while its versions are shown, while a search is pending, and after a reply to it was begun
  const { event_id: edited } = await guest.post(roses, "pink once");
  await guest.edit(roses, edited, "pink twice");
  await act(page, "pink twice", "edited");
  await page.locator(".versions").getByText("pink once").waitFor();
  await owner.redact(roses, edited, { reason: "a test" });
  await until(() => !document.body.textContent.includes("pink once"));
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  const { event_id: sought } = await owner.post(roses, "thistles");
  await message(page, "thistles").waitFor();
  await page.route("**/search/messages?*", async (route) => {
    const answer = await route.fetch();
    await owner.redact(roses, sought);
    await message(page, "thistles").waitFor({ state: "detached" });
    await route.fulfill({ response: answer });
  });
  await page.getByRole("searchbox").fill("thistles");
  await page.keyboard.press("Enter");
  await page.locator("#panel").getByText("Nothing was found.").waitFor();
  await page.unroute("**/search/messages?*");
  await page.keyboard.press("Escape");
  await go("tulips");
  await message(page, "bulb 59.").waitFor();
  await page.locator("#older").click();
  await act(page, "bulb 3.", "Reply");
  await context.getByText("bulb 3.").waitFor();
  await go("roses");
  await owner.redact(tulips, (await owner.messages(tulips, { limit: 1, after: 3 })).messages[0].event_id);
  await page.locator("#announcer:empty").waitFor({ state: "attached" });
  await go("tulips");
  await context.getByText("deleted").waitFor();
  await page.keyboard.press("Escape");
  await text.fill("on bulbs");
  await go("roses");

  // the key that ends an input method's composition sends nothing
  await text.fill("日本");
  const isSent = await text.evaluate((element) => !element.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", keyCode: 229, bubbles: true, cancelable: true })));
  assert.equal(isSent, false);
  await text.fill("");

  // an unsent message stays in its channel, and is stored once
  await role("guest");
  await write(page, "first of two");
  await write(page, "second of two");
  await page.locator("#pending li", { hasText: "second of two" }).getByText("not sent: ").waitFor();
  assert.equal(await alerts.textContent(), "", "nothing covers the buttons");
  await go("tulips");
  await message(page, "bulb 59.").waitFor();
  assert.deepEqual([await text.inputValue(), await page.locator("#pending li").count()], ["on bulbs", 0]);
  await go("roses");
  await page.reload();
  await page.locator("#pending li", { hasText: "second of two" }).getByText("not sent: ").waitFor();
  await role("member");
  await page.locator("#pending li", { hasText: "first of two" }).getByRole("button", { name: "Send again" }).click();
  await message(page, "first of two").waitFor();
  await page.locator("#pending").getByRole("button", { name: "Edit" }).click();
  assert.equal(await text.inputValue(), "second of two");
  await text.fill("x".repeat(4_001));
  await page.keyboard.press("Enter");
  await alerts.getByText("at most 4000 characters, and this one 4001").waitFor();
  assert.equal((await text.inputValue()).length, 4_001, "nothing is cut off");
  await text.fill("");

  // reading older messages
  await go("tulips");
  await message(page, "bulb 59.").waitFor();
  await page.locator("#show-pins").focus();
  let stops = 1;
  for (; stops < 20 && !(await text.evaluate((element) => element === document.activeElement)); stops += 1) await page.keyboard.press("Tab");
  assert.ok(stops < 20, "the keyboard passes the buttons of all messages but one");
  await page.locator(".timeline").evaluate((element) => (element.scrollTop = 0));
  await page.route("**/messages?*", async (route) => {
    const answer = await route.fetch(); // slow: others write meanwhile
    for (let number = 0; number < 5; number += 1) await owner.post(tulips, `meanwhile ${number}.`);
    await message(page, "meanwhile 4.").waitFor();
    await route.fulfill({ response: answer });
  });
  const top = () => message(page, "bulb 10.").evaluate((element) => element.getBoundingClientRect().top);
  const before = await top();
  await page.locator("#older").click();
  await message(page, "bulb 0.").waitFor();
  assert.ok(Math.abs((await top()) - before) < 20, "what is being read stays where it is");
  await page.unroute("**/messages?*");
  await page.getByRole("button", { name: "To the newest messages" }).waitFor();
  await page.getByRole("button", { name: "# tulips 5 unread" }).waitFor(); // they are out of view
  await write(page, "my own");
  await message(page, "my own").waitFor();
  await page.getByRole("button", { name: "# tulips", exact: true }).waitFor(); // read
  await until(() => {
    const { scrollHeight, scrollTop, clientHeight } = document.querySelector(".timeline");
    return scrollHeight - scrollTop - clientHeight < 2;
  });

  // reading on from a message far back
  await go("roses");
  await go("tulips");
  await message(page, "my own").waitFor();
  await page.getByRole("searchbox").fill("bulb 2.");
  await page.keyboard.press("Enter");
  await page.locator("#panel").getByRole("button", { name: "bulb 2." }).click();
  await message(page, "bulb 20.").waitFor();
  await page.keyboard.press("Escape");
  const newer = page.locator("#newer");
  const isFocused = () => document.activeElement?.closest(".message")?.previousElementSibling?.textContent.includes(globalThis.lastBefore);
  await page.evaluate(() => (globalThis.lastBefore = document.querySelector("#messages").lastElementChild.querySelector(".text").textContent));
  await newer.click();
  await message(page, "my own").waitFor();
  await until(isFocused);
  await newer.waitFor({ state: "hidden" });
  assert.ok(await page.locator(".timeline").evaluate(({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight > 100), "not at the end");

  // an item that swaps places with many is moved alone
  const moved = await page.evaluate(async () => {
    const { place } = await import("/page/redraw.js");
    const list = document.createElement("ol");
    const items = Array.from({ length: 9 }, () => document.createElement("li"));
    place(list, items);
    const watching = new MutationObserver(() => {});
    watching.observe(list, { childList: true });
    place(list, [...items.slice(1), items[0]]);
    place(list, items);
    return new Set(watching.takeRecords().flatMap(({ removedNodes }) => [...removedNodes])).size;
  });
  assert.equal(moved, 1);

  // an invite is opened in the tab that has the page
  await page.goto(`${PAGE}#invite=${cellar.code}`);
  await page.getByRole("heading", { name: "Join Cellar?" }).waitFor();
  await page.getByRole("button", { name: "Cancel" }).click();

  // the tab is duplicated
  const kept = await page.evaluate(() => sessionStorage.getItem("openguild.session"));
  const other = await page.context().newPage();
  await other.addInitScript((session) => sessionStorage.setItem("openguild.session", session), kept);
  await other.goto(PAGE);
  await other.getByText("Another tab uses this session.").waitFor();
  await other.close();

  // the open channel disappears while the user writes
  await go("weeds");
  await page.getByText("Nobody has written here yet.").waitFor(); // the channel has been read by now: a browser logs each 404
  await text.fill("for weeds only");
  await owner.deleteChannel(weeds);
  assert.equal(await page.getByLabel("Unsent text").inputValue(), "for weeds only");
  await fill(page, null, null, "Close");
  await page.getByText("Choose a channel.", { exact: true }).waitFor();
  assert.equal(await text.isVisible(), false, "nothing is sent elsewhere");
  await until(() => document.activeElement.id === "channel-title");
  await go("roses");
  assert.equal(await text.inputValue(), "");
  await text.fill("not lost");
  await guest.request("POST", "/sessions/revoke", { body: { refresh_token: JSON.parse(kept).session.refresh_token } });
  await page.getByText("Your session has ended.").waitFor();
  await logIn();
  assert.equal(await text.inputValue(), "not lost");
  await page.locator(`.member.online[data-user="${OLGA}"]`).waitFor(); // everything has been read
  await owner.removeMember(garden.id, guest.userId);
  await fill(page, null, null, "Close"); // it has the draft
  await page.getByText("Create a guild, or join one by an invite.").waitFor();
  assert.equal(await page.locator("#messages > li").count(), 0, "nothing of it is shown any more");

  // the password is changed: other devices are logged out, and a wrong current password is reported
  const over = new Promise((resolve) => guest.on("status", ({ state }) => state === "ended" && resolve()));
  async function change(current, next) {
    await choose(page, "Account", "Change password");
    await page.getByLabel("Current password").fill(current);
    await fill(page, "New password", next, "Change");
  }
  await change(PASSWORD, "battery staple");
  await alerts.getByText("Your password is changed. All your other devices are logged out.").waitFor();
  await over;
  assert.equal(guest.isLoggedIn, false);
  assert.deepEqual(complaints, []);
  await change(PASSWORD, "battery staple 2");
  await alerts.getByText("the current password is wrong").waitFor();
  await change("battery staple", "short     ");
  await alerts.getByText("new_password must be at least 8 characters long").waitFor();
  await page.route("**/users/@me/password", (route) => route.abort());
  await change("battery staple", "battery staple 2");
  await alerts.getByText("Enter the new password in both fields to find out.").waitFor();

  // the account is deleted
  async function deleteAccount(password) {
    await choose(page, "Account", "Delete account");
    await fill(page, "Password", password, "Delete for good");
  }
  await deleteAccount("a wrong guess");
  await alerts.getByText("the current password is wrong").last().waitFor();
  await deleteAccount("battery staple");
  await page.getByRole("button", { name: "Log in" }).waitFor();
  await assert.rejects(guest.login(GUSTAV, "battery staple"), { code: "invalid_credentials" });
} catch (failure) {
  if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/failed-everyday.png` });
  console.error(await alerts.allTextContents(), complaints.join("\n"));
  throw failure;
} finally {
  owner.close();
  guest.close();
  await browser.close();
}
