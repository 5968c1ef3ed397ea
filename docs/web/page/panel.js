/** The panel beside the messages: search results, pins, and bans. */

import { byId, h, shown, timeElement } from "./dom.js";

/** @typedef {import("./chat.js").Chat} Chat */

/** @type {(channelId: string, sequence: number, eventId: string) => Promise<void>} set by the app */
let goTo = async () => {};

/** @param {typeof goTo} go */
export function setGoTo(go) {
  goTo = go;
}

/**
 * Show items. The focus moves to them, unless the user has moved it while they were requested.
 * @param {Element | null} opener the element that had the focus when they were requested
 * @param {string} title @param {string} ifEmpty @param {HTMLElement[]} items
 */
function show(opener, title, ifEmpty, items) {
  const panel = byId("panel");
  const isElsewhere = ![opener, document.body].includes(document.activeElement);
  const close = () => {
    panel.hidden = true;
    if (opener instanceof HTMLElement) opener.focus();
  };
  panel.onkeydown = (event) => event.key === "Escape" && close();
  const heading = h("h2", { id: "panel-title", tabindex: "-1" }, title);
  panel.replaceChildren(h("div", { class: "panel-head" }, heading, h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: close }, "✕")),
    items.length === 0 ? h("p", { class: "empty" }, ifEmpty) : h("ul", { class: "found" }, ...items));
  panel.hidden = false;
  if (!isElsewhere) heading.focus();
}

/** Close the panel if it covers the messages, so that the chosen one is visible. */
function uncover() {
  const panel = byId("panel");
  if (getComputedStyle(panel).position === "fixed") panel.hidden = true;
}

/** @typedef {{event_id: string, channel_id: string, sequence: number, created_at: string}} Found */

/** @param {Found} found @param {string} author @param {string} text */
function line({ event_id: id, channel_id: channel, sequence, created_at: at }, author, text) {
  const go = () => void shown(() => (uncover(), goTo(channel, sequence, id)));
  const head = h("span", { class: "head" }, h("span", { class: "author" }, author), " ", timeElement(at));
  const button = h("button", { type: "button", onclick: go }, head, h("span", { class: "snippet" }, text));
  return h("li", { "data-event": id, "data-channel": channel }, button);
}

/** @param {Chat} chat @param {string} q */
export async function showResults(chat, q) {
  const opener = document.activeElement;
  const { results } = await chat.client.search({ q, in: [chat.guildId] });
  const found = results.filter((result) => chat.mayShow(result.channel_id, result.event_id));
  show(opener, `Found: ${q}`, "Nothing was found.",
    found.map((result) => line(result, `${chat.nameOf(result.author)} in #${result.subtitle}`, chat.shownText(result.snippet))));
}

/** @param {Chat} chat */
export async function showPins(chat) {
  const { channelId } = chat;
  const opener = document.activeElement;
  const pins = await chat.client.pins(channelId);
  const pinned = pins.filter((pin) => chat.mayShow(pin.channel_id, pin.event_id));
  const lines = pinned.map((pin) => line(pin, chat.nameOf(pin.author), chat.shownText(pin.content)));
  if (channelId === chat.channelId) show(opener, "Pinned messages", "Nothing is pinned here.", lines);
}

/** @param {Chat} chat */
export async function showBans(chat) {
  const { guildId } = chat;
  const opener = document.activeElement;
  const bans = await chat.client.bans(guildId);
  if (guildId === chat.guildId) show(opener, "Bans", "Nobody is banned.", bans.map((ban) => banLine(chat, ban)));
}

/** @param {Chat} chat @param {import("../openguild/types.js").Ban} ban */
function banLine(chat, { guild_id: guild, user_id: user, username, banned_by: by, banned_at: at, reason }) {
  const name = username ?? user;
  const end = async () => {
    await chat.client.unbanMember(guild, user);
    item.remove();
    byId("panel-title").focus();
  };
  const head = h("span", { class: "head" }, h("span", { class: "author" }, name), " ", timeElement(at), ` by ${chat.nameOf({ id: by })}`);
  const button = h("button", { type: "button", "aria-label": `End the ban of ${name}`, onclick: () => void shown(end) }, "End the ban");
  const item = h("li", { "data-event": `ban-${user}`, "data-channel": guild }, head, h("span", { class: "snippet" }, reason ?? ""), button);
  return item;
}
