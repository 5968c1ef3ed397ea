// A browser and the actions of users on the page, for two_browsers.mjs and everyday.mjs.
import { createRequire } from "node:module";

const { NODE_MODULES, CHROMIUM } = process.env;
const { chromium } = createRequire(`${NODE_MODULES}/`)("playwright-core");
export const PASSWORD = "correct horse battery";
const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--disable-background-networking", "--no-proxy-server"];
const EXPECTED = /net::ERR_CONNECTION|status of 503|WebSocket connection to .* failed/; // during the server's restart
export const complaints = [];

export async function open(name, options = {}) {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args });
  const context = await browser.newContext({ viewport: { width: 1180, height: 720 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.on("pageerror", (error) => complaints.push(`${name}: ${error}`));
  page.on("console", (message) => message.type() === "error" && !EXPECTED.test(message.text()) && complaints.push(`${name}: ${message.text()} ${message.location().url}`));
  return { browser, page };
}

/** Sign in: on a first visit, or with an invite, Enter registers. */
export async function register(page, name) {
  await page.getByLabel("Username").fill(name);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.keyboard.press("Enter");
  await page.getByRole("status").filter({ hasText: /^Connected$/ }).waitFor();
}

export const message = (page, text) => page.locator("#messages > li").filter({ hasText: text });
export async function write(page, text) {
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.keyboard.press("Enter");
}
/** Choose an action for a message, with the keyboard. */
export async function act(page, text, name) {
  await message(page, text).last().focus();
  await message(page, text).last().getByRole("button", { name, exact: true }).click();
}
/** Choose an item from the menu that a button opens, such as that of a member. */
export async function choose(page, button, choice) {
  await page.getByRole("button", { name: button, exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: choice, exact: true }).click();
}
export async function fill(page, label, text, button) {
  const dialog = page.getByRole("dialog");
  if (label) await dialog.getByLabel(label).fill(text);
  await dialog.getByRole("button", { name: button, exact: true }).click();
  await dialog.waitFor({ state: "detached" });
}
