/** The page: finds the server, signs users in, and shows the chat. */

import { ApiError, Client } from "../openguild.js";
import { Chat } from "./chat.js";
import { announce, ask, failureText, h, showProblem, showView, shown } from "./dom.js";
import { App } from "./app.js";
import { keptDrafts, takeUpDrafts } from "./composer.js";
import { keptUnsent, takeUpUnsent } from "./outbox.js";
import { hideDrawers } from "./sidebar.js";
import { ofBrowser, ofTab } from "./storage.js";

const KEPT = "openguild.session"; // per tab: it survives a reload, and each tab can have another user
const PLACE = "openguild.place"; // per tab: the open channel
const APPEARS = "openguild.appears"; // per tab: the user's presence
const WRITTEN = "openguild.written"; // per tab: drafts and unsent messages, across a reload
const VISITED = "openguild.visited"; // per browser: a user has logged in before
const INVITE = /^#invite=([A-Za-z0-9_-]{1,64})$/;
const LOCK_MS = 1_000; // how long a reloaded tab may still hold the lock of its session
const MAX_COUNTED_MEMBERS = 10_000; // PROTOCOL 5.6.7

/**
 * Store the session, without positions: after a reload the page reads folded messages and follows the logs after them.
 * @param {Client} client
 */
function keep(client) {
  if (client.isLoggedIn) ofTab.set(KEPT, JSON.stringify({ ...client.toJSON(), positions: {} }));
  else ofTab.remove(KEPT);
}

function keepWritten() {
  ofTab.set(WRITTEN, JSON.stringify({ drafts: keptDrafts(), unsent: keptUnsent() }));
}

/** Restore the drafts and unsent messages that were stored when the page was left. */
function takeUpWritten() {
  const kept = ofTab.get(WRITTEN);
  ofTab.remove(WRITTEN); // stale from here on
  if (kept === null) return;
  const { drafts, unsent } = JSON.parse(kept);
  takeUpDrafts(drafts);
  takeUpUnsent(unsent);
}

/** @param {string} api */
function keptClient(api) {
  try {
    const kept = JSON.parse(ofTab.get(KEPT) ?? "null");
    return kept?.url === api && kept.session ? Client.fromJSON(kept) : null;
  } catch {
    return null; // stored by another release
  }
}

/**
 * Create an account, or log in if one exists with this name and password.
 * @param {Client} client
 * @param {string} name
 * @param {string} password
 */
async function register(client, name, password) {
  try {
    await client.register(name, password);
  } catch (refusal) {
    if (!(refusal instanceof ApiError) || refusal.code !== "username_taken") throw refusal;
    try {
      return await client.login(name, password);
    } catch (wrong) {
      throw wrong instanceof ApiError && wrong.status === 401 ? refusal : wrong;
    }
  }
  await client.login(name, password);
}

/** Return advice for the user about a refusal. @param {ApiError} refusal */
function advice(refusal) {
  const { code } = refusal;
  if (code === "username_taken") return "This name is taken. If it is yours, the password is wrong; else choose another name.";
  if (code === "invalid_credentials") return "There is no account with this name and password. If you have none yet, press Register.";
  return failureText(refusal);
}

/**
 * Show the form to log in or register. Enter registers on the first visit and after an invite, and logs in later.
 * @param {string} api
 * @param {string} [notice]
 */
function showSignIn(api, notice) {
  for (const dialog of document.querySelectorAll("dialog")) dialog.close(); // they belong to the session that has ended
  ofTab.remove(APPEARS);
  announce(null);
  document.title = "OpenGuild";
  const isInvited = INVITE.test(location.hash);
  const isNew = isInvited || ofBrowser.get(VISITED) === null;
  const name = h("input", { id: "username", name: "username", required: true, autocomplete: "username", autocapitalize: "none", maxlength: 64 });
  const password = h("input", { id: "password", name: "password", type: "password", required: true, minlength: 8, autocomplete: isNew ? "new-password" : "current-password" });
  const problem = h("p", { role: "alert", class: "problem" }, notice);
  /** @param {SubmitEvent} event */
  const onsubmit = async (event) => {
    event.preventDefault();
    const registers = event.submitter?.getAttribute("value") === "register";
    problem.textContent = "";
    for (const button of form.querySelectorAll("button")) button.disabled = true;
    const client = new Client(api, { retryMs: 5_000 });
    try {
      if (registers) await register(client, name.value, password.value);
      else await client.login(name.value, password.value);
      ofBrowser.set(VISITED, "yes");
      await isOurs(client);
      await showChat(api, Client.fromJSON(client.toJSON())); // with the default `retryMs`
    } catch (failure) {
      problem.textContent = failure instanceof ApiError ? advice(failure)
        : `${api} does not answer: is the server running, and does it allow pages of ${location.origin}?`;
    } finally {
      for (const button of form.querySelectorAll("button")) button.disabled = false;
      client.close();
    }
  };
  const entering = h("button", { value: "login", class: isNew ? null : "primary" }, "Log in");
  const registering = h("button", { value: "register", class: isNew ? "primary" : null }, "Register");
  const form = h("form", { onsubmit, "aria-labelledby": "sign-in-title" },
    h("h1", { id: "sign-in-title" }, "OpenGuild"),
    h("p", {}, isInvited ? "You are invited. Choose a name and a password, and register to join; or log in." : isNew ? "Choose a name and a password, and register; or log in." : "Log in, or register a new account."),
    h("p", {}, h("label", { for: "username" }, "Username"), name),
    h("p", {}, h("label", { for: "password" }, "Password, at least 8 characters"), password),
    problem,
    h("p", { class: "buttons" }, ...(isNew ? [registering, entering] : [entering, registering])));
  showView(h("main", { class: "sign-in" }, form, h("p", { class: "server" }, `Server: ${api}`)));
  name.focus();
}

/** @param {string} api @param {Client} client */
async function showChat(api, client) {
  const over = new AbortController(); // aborted when this session ends; another user may log in afterwards
  const { signal } = over;
  /** @param {unknown} failure */
  const failed = (failure) => void (signal.aborted || showProblem(failure));
  keep(client);
  client.on("session", () => keep(client));
  client.on("failure", failed);
  const app = new App(client, () => {
    over.abort();
    ofTab.remove(KEPT);
    keepWritten(); // nothing is left to the next user
    ofTab.remove(PLACE);
    showSignIn(api);
  });
  const place = ofTab.get(PLACE) ?? "";
  const appears = ofTab.get(APPEARS) ?? "online";
  /** @param {import("./chat.js").Part} part */
  const changed = (part) => {
    if (chat.channelId !== "") ofTab.set(PLACE, chat.channelId);
    ofTab.set(APPEARS, chat.status);
    app.changed(part);
  };
  const chat = new Chat(client, changed, (message) => app.heard(message), (id) => app.forget(id), failed);
  if (appears !== "online") chat.appearAs(/** @type {import("../openguild/types.js").PresenceStatus} */ (appears));
  client.on("status", ({ state, reason }) => {
    if (state !== "ended" || client.isLoggedIn) return;
    over.abort();
    app.keep();
    showSignIn(api, reason === "closed" ? "" : "Your session has ended. Log in again.");
  });
  addEventListener("online", () => client.wake(), { signal });
  const keepAll = () => (app.keep(), keepWritten());
  addEventListener("pagehide", keepAll, { signal });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) keepAll(); // the browser may discard a hidden tab without `pagehide`
    else ofTab.remove(WRITTEN); // stale from here on
    app.draw(); // a hidden page gets no frames
    chat.markRead();
  }, { signal });
  app.show(chat);
  await shown(async () => {
    await chat.start();
    const joined = await acceptInvite(client);
    if (joined) await shown(() => chat.arrived(joined.guild_id));
    const first = chat.sortedGuilds[0]?.guild.guild_id;
    if (first === undefined) return app.showNavigation();
    if (chat.guildId === "") await chat.open(place);
    if (chat.guildId === "") await chat.openGuild(first); // the stored channel is gone, or not one of this user
  });
}

/** Join by the invite in the page's address, if there is one. @param {Client} client */
async function acceptInvite(client) {
  const code = INVITE.exec(location.hash)?.[1];
  if (code === undefined) return undefined;
  history.replaceState(null, "", location.pathname);
  const preview = await shown(() => client.previewInvite(code));
  if (preview === undefined) return undefined;
  const count = preview.member_count;
  const people = count === 1 ? "1 member" : `${count}${count === MAX_COUNTED_MEMBERS ? " or more" : ""} members`;
  const accepted = await ask({ title: `Join ${preview.guild_name}?`, text: people, submit: "Join" });
  return accepted !== null ? await shown(() => client.acceptInvite(code)) : undefined;
}

/**
 * Claim the session for this tab. Return false if another tab has it. A duplicated tab begins with a copy of the session, and the
 * second refresh with the same token would end the session for both.
 * @param {Client} client
 */
async function isOurs(client) {
  if (!("locks" in navigator)) return true; // only secure contexts have locks
  return await new Promise((resolve, reject) => {
    const held = () => new Promise(() => resolve(true)); // until the tab is closed or loaded again
    navigator.locks.request(`${KEPT}.${client.deviceId}`, { signal: AbortSignal.timeout(LOCK_MS) }, held)
      .catch((failure) => (failure.name === "TimeoutError" ? resolve(false) : reject(failure)));
  });
}

/** Return the settings. While they cannot be read, show why, and let the user try again. @returns {Promise<{api: string}>} */
async function readSettings() {
  for (;;) {
    try {
      const answer = await fetch("settings.json");
      if (answer.ok) return await answer.json();
      throw new Error(`HTTP ${answer.status}`);
    } catch (failure) {
      await new Promise((resolve) => {
        const again = h("button", { type: "button", class: "primary", onclick: resolve }, "Try again");
        showView(h("main", { class: "sign-in" }, h("p", { role: "alert" }, `The settings of this page could not be read: ${failureText(failure)}`), again));
        again.focus();
      });
    }
  }
}

addEventListener("keydown", ({ key }) => {
  if (key === "Escape" && document.getElementById("app") !== null) hideDrawers()?.focus();
});
addEventListener("pagehide", keepWritten); // even if nobody is logged in
addEventListener("hashchange", () => INVITE.test(location.hash) && location.reload()); // an invite link was opened in this tab
const { api } = await readSettings();
const client = keptClient(api);
if (client === null || await isOurs(client)) {
  takeUpWritten();
  if (client === null) showSignIn(api);
  else await showChat(api, client);
} else {
  ofTab.remove(KEPT);
  ofTab.remove(WRITTEN); // the other tab has the drafts
  showSignIn(api, "Another tab uses this session. Log in to have one here, too.");
}
