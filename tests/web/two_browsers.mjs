// Two users in two browsers: they meet by an invite and chat, and the server restarts meanwhile. Called by test_page.py.
import assert from "node:assert/strict";
import { act, choose, complaints, fill, message, open, PASSWORD, register, write } from "./browsers.mjs";

const { PAGE, CONTROL, SCREENSHOTS } = process.env;
const [ALICE, BOB] = ["alice", "bob"].map((name) => name + (process.env.SUFFIX ?? ""));

const texts = (page) => page.locator("#messages .text").allTextContents();
const shot = async (page, name) => SCREENSHOTS && (await page.screenshot({ path: `${SCREENSHOTS}/${name}.png` }));

const [alice, bob] = await Promise.all([open("alice"), open("bob", { colorScheme: "dark" })]);
try {
  const [one, two] = [alice.page, bob.page];
  await one.goto(PAGE);
  await shot(one, "sign-in");
  await register(one, ALICE);

  await one.getByRole("button", { name: "New guild" }).click();
  await fill(one, "Name of the guild", "Tea room", "Create");
  await one.getByRole("heading", { name: "#general" }).waitFor();
  await one.waitForFunction(() => document.activeElement.id === "composer-text"); // they can write at once
  await one.getByRole("button", { name: "Invite", exact: true }).click();
  const link = await one.getByLabel("Link").inputValue();
  await fill(one, null, null, "Cancel");

  await two.goto(link);
  await register(two, BOB);
  await two.getByRole("heading", { name: "Join Tea room?" }).waitFor();
  await fill(two, null, null, "Join");
  await two.getByRole("heading", { name: "#general" }).waitFor();

  // presence, typing, messages
  await one.locator("#members .member.online", { hasText: BOB }).waitFor();
  await two.getByLabel("Message", { exact: true }).pressSequentially("Hel");
  await one.getByText(`${BOB} is typing`).waitFor();
  await write(two, "Hello <b>Alice</b> & everybody");
  await message(one, "Hello <b>Alice</b>").waitFor();
  assert.equal(await one.locator("#messages b").count(), 0, "what people write is text");
  assert.match(await one.locator("#announcer").textContent(), new RegExp(`${BOB}: Hello`));
  await write(one, "Helo Bob");
  await act(one, "Helo Bob", "Edit");
  await one.keyboard.press("Control+A");
  await one.keyboard.type("Hello Bob");
  await one.keyboard.press("Enter");
  await message(two, "Hello Bob").getByRole("button", { name: "edited" }).waitFor();

  // reactions, replies, pins
  await act(two, "Hello Bob", "React");
  await two.getByRole("button", { name: "React with 🎉" }).click();
  await message(one, "Hello Bob").getByRole("button", { name: "🎉 1" }).click();
  await message(two, "Hello Bob").getByRole("button", { name: "🎉 2" }).waitFor();
  await act(two, "Hello Bob", "React");
  await fill(two, "Another emoji", "rude", "Add");
  await message(one, "Hello Bob").getByRole("button", { name: "rude 1" }).waitFor();
  assert.equal(await message(two, "Hello Bob").getByRole("button", { name: "Clear reactions" }).count(), 0, "bob is no moderator");
  await act(one, "Hello Bob", "Clear reactions");
  await one.getByLabel("Reactions", { exact: true }).and(one.locator("select")).selectOption({ label: "rude 1" });
  await fill(one, "Reason (optional)", "a test", "Clear");
  await message(two, "Hello Bob").getByRole("button", { name: "rude 1" }).waitFor({ state: "detached" });
  await message(two, "Hello Bob").getByRole("button", { name: "🎉 2" }).waitFor();
  await two.mouse.move(0, 0);
  await two.waitForFunction(() => [...document.querySelectorAll(".actions")].every((actions) => getComputedStyle(actions).opacity === "0"));
  await act(two, "Hello Bob", "Reply");
  await write(two, "Nice to see you here");
  await message(one, "Nice to see you here").getByText(`↪ ${ALICE}: Hello Bob`).waitFor();
  await act(one, "Nice to see you here", "Pin");
  await message(two, "Nice to see you here").getByText("pinned").waitFor();
  await two.getByRole("button", { name: "Pins" }).click();
  await two.locator("#panel").getByRole("button", { name: "Nice to see you here" }).waitFor();
  await two.keyboard.press("Escape");
  await two.locator("#panel").waitFor({ state: "hidden" });

  // unread counts, in a channel that is not open
  await one.getByRole("button", { name: "New channel" }).click();
  await fill(one, "Name of the channel", "recipes", "Create");
  await one.getByRole("button", { name: "# recipes" }).click();
  await one.getByRole("heading", { name: "#recipes" }).waitFor();
  await write(one, "Scones need buttermilk");
  await two.getByRole("button", { name: "# recipes 1 unread" }).hover();
  await two.mouse.down();
  await write(one, `@${BOB}, do you agree?`);
  await two.getByRole("button", { name: "# recipes @1 mentions" }).waitFor();
  await two.mouse.up(); // a click, although the pressed element has been redrawn
  await message(two, `@${BOB}, do you agree?`).waitFor();
  await message(two, "Scones need buttermilk").waitFor();
  await two.getByRole("button", { name: "# recipes", exact: true }).waitFor();

  // search
  await one.getByRole("button", { name: "# general" }).click();
  await message(one, "Hello Bob").first().waitFor();
  await one.getByRole("searchbox").fill("buttermilk");
  await one.keyboard.press("Enter");
  await one.locator("#panel").getByRole("button", { name: "Scones need buttermilk" }).click();
  await one.getByRole("heading", { name: "#recipes" }).waitFor();
  await shot(one, "desktop-light");
  await one.locator("#panel").getByRole("button", { name: "Close" }).click();
  await two.getByRole("button", { name: "# general" }).click();
  await shot(two, "desktop-dark");

  // the server restarts while they chat
  await two.getByRole("button", { name: "# recipes" }).click();
  const restarted = fetch(`${CONTROL}/restart`, { method: "POST" });
  await one.getByRole("status").filter({ hasNotText: /^Connected/ }).waitFor();
  await write(one, "Are you still there?");
  await write(two, "Yes, I am");
  await shot(two, "reconnecting");
  await restarted;
  for (const page of [one, two]) {
    await page.getByRole("status").filter({ hasText: /^Connected$/ }).waitFor();
    await message(page, "Are you still there?").waitFor();
    await message(page, "Yes, I am").waitFor();
  }
  await write(one, "Once more");
  for (const page of [one, two]) await message(page, "Once more").waitFor();
  assert.deepEqual(await texts(one), await texts(two), "all level");
  assert.equal((await texts(one)).length, 5, "nothing twice");

  // the session survives a reload, and a message is redacted
  await one.reload();
  await one.getByRole("button", { name: "# recipes" }).click();
  await act(one, "Once more", "Delete");
  await fill(one, "Reason (optional)", "", "Delete");
  await message(two, "This message was deleted.").waitFor();
  assert.ok(!(await two.content()).includes("Once more"));

  // a phone
  await two.setViewportSize({ width: 390, height: 780 });
  await shot(two, "phone");
  await two.getByRole("button", { name: "Guilds and channels" }).click();
  await two.getByRole("button", { name: "# general" }).waitFor();
  await shot(two, "phone-channels");
  await two.getByRole("button", { name: "# general" }).click();
  await message(two, "Hello Bob").first().waitFor();
  await shot(two, "phone-general");
  const { scrollWidth, scrollHeight } = await two.evaluate(() => ({ scrollWidth: document.documentElement.scrollWidth, scrollHeight: document.documentElement.scrollHeight }));
  assert.deepEqual([scrollWidth, scrollHeight], [390, 780], "nothing is cut off, and the page itself does not scroll");

  // a time-out, and its end
  await choose(one, `Manage ${BOB}`, "Time out");
  await fill(one, "Minutes", "90", "Time out");
  await one.locator(`.member[data-user="${BOB}"] .role`, { hasText: "timed out" }).waitFor();
  const role = two.locator(`.member[data-user="${BOB}"] .role`); // hidden on a phone
  await role.filter({ hasText: "timed out" }).waitFor({ state: "attached" });
  await two.getByText("You are timed out until").waitFor();
  await shot(two, "phone-timed-out");
  await choose(one, `Manage ${BOB}`, "End time-out");
  await two.getByText("You are timed out until").waitFor({ state: "detached" });
  await role.filter({ hasText: /^member$/ }).waitFor({ state: "attached" });
  await one.locator(`.member[data-user="${BOB}"] .role`, { hasText: /^member$/ }).waitFor();

  // another role, and back
  await choose(one, `Manage ${BOB}`, "Change role");
  await one.getByRole("dialog").getByLabel("Role").selectOption("moderator");
  await shot(one, "role");
  await fill(one, null, null, "Change");
  await role.filter({ hasText: "moderator" }).waitFor({ state: "attached" });
  await choose(one, `Manage ${BOB}`, "Change role");
  await one.getByRole("dialog").getByLabel("Role").selectOption("member");
  await fill(one, null, null, "Change");
  await role.filter({ hasText: /^member$/ }).waitFor({ state: "attached" });

  // a ban, and its end
  await choose(one, `Manage ${BOB}`, "Ban");
  await fill(one, "Reason, which all members can read", "too <i>loud</i>", "Ban");
  await two.getByText("Create a guild, or join one by an invite.").waitFor();
  await two.goto(link);
  await fill(two, null, null, "Join");
  await two.locator("#alerts").getByText("you are banned from this guild").waitFor();
  await one.getByRole("button", { name: "Bans", exact: true }).click();
  await one.locator("#panel li", { hasText: "too <i>loud</i>" }).waitFor();
  await shot(one, "bans");
  await one.getByRole("button", { name: `End the ban of ${BOB}` }).click();
  await one.locator("#panel li").waitFor({ state: "detached" });
  await one.keyboard.press("Escape");
  await two.goto(PAGE);
  await two.goto(link);
  await fill(two, null, null, "Join");
  await message(two, "Hello Bob").first().waitFor();

  // the guild and its channels change, and one channel goes
  await choose(one, "Manage", "Rename guild");
  await fill(one, "Name", "Tea house", "Rename");
  await two.locator("#channels .item", { hasText: "Tea house" }).waitFor({ state: "attached" }); // out of sight on a telephone
  await choose(one, "Manage", "Rename guild");
  await fill(one, "Name", "Tea room", "Rename");
  await one.getByRole("button", { name: "# recipes" }).click();
  await one.getByRole("heading", { name: "#recipes" }).waitFor();
  await choose(one, "Manage channel", "Change name and topic");
  await one.getByRole("dialog").getByLabel("Topic").fill("Cakes & more");
  await fill(one, "Name", "baking", "Change");
  await one.getByRole("heading", { name: "#baking" }).waitFor();
  await one.getByText("Cakes & more").waitFor();
  const gone = two.locator("#channels .item", { hasText: "# baking" });
  await gone.waitFor({ state: "attached" });
  await choose(one, "Manage channel", "Delete channel");
  await fill(one, null, null, "Delete channel");
  await gone.waitFor({ state: "detached" });
  await one.getByRole("heading", { name: "#baking" }).waitFor({ state: "detached" });

  // the end of a membership
  await choose(one, `Manage ${BOB}`, "Remove");
  await fill(one, null, null, "Remove");
  await two.getByText("Create a guild, or join one by an invite.").waitFor();
  await one.getByRole("button", { name: "Log out" }).click();
  await one.getByLabel("Username").fill(`${ALICE}-else`);
  assert.deepEqual([await one.title(), await one.locator("#announcer").textContent()], ["OpenGuild", ""], "nothing of the session is left");
  await one.getByLabel("Password").fill(PASSWORD);
  await one.keyboard.press("Enter"); // Enter logs in, because it is not the first visit
  await one.getByText("If you have none yet, press Register").waitFor();
  await one.getByLabel("Username").fill(ALICE);
  await one.getByRole("button", { name: "Register" }).click(); // the account is theirs already
  await one.getByRole("status").filter({ hasText: /^Connected$/ }).waitFor();
  assert.deepEqual(complaints.filter((complaint) => !/status of (401|403|409)/.test(complaint)), []);
} catch (failure) {
  await shot(alice.page, "failed-alice");
  await shot(bob.page, "failed-bob");
  for (const { page } of [alice, bob]) console.error(await page.locator("#alerts").allTextContents());
  console.error(complaints.join("\n"));
  throw failure;
} finally {
  await Promise.all([alice.browser.close(), bob.browser.close()]);
}
