/** What opens beside the messages: search results and pins. */

import { byId, h, shown, timeElement } from "./dom.js";

/** @typedef {import("./chat.js").Chat} Chat */

/** @type {(channelId: string, sequence: number, eventId: string) => Promise<void>} set by the app */
let goTo = async () => {};

/** @param {typeof goTo} go */
export function setGoTo(go) {
  goTo = go;
}

/** @param {string} title @param {string} ifEmpty @param {HTMLElement[]} items */
function show(title, ifEmpty, items) {
  const panel = byId("panel");
  const opener = document.activeElement;
  const close = () => {
    panel.hidden = true;
    if (opener instanceof HTMLElement) opener.focus();
  };
  panel.onkeydown = (event) => event.key === "Escape" && close();
  const heading = h("h2", { id: "panel-title", tabindex: "-1" }, title);
  panel.replaceChildren(h("div", { class: "panel-head" }, heading, h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: close }, "✕")),
    items.length === 0 ? h("p", { class: "empty" }, ifEmpty) : h("ul", { class: "found" }, ...items));
  panel.hidden = false;
  heading.focus();
}

/** Where the panel is over the messages, what was chosen is to be seen. */
function uncover() {
  const panel = byId("panel");
  if (getComputedStyle(panel).position === "fixed") panel.hidden = true;
}

/** Show a message no longer. @param {string} eventId */
export function forget(eventId) {
  for (const line of byId("panel").querySelectorAll("li")) if (line.dataset["event"] === eventId) line.remove();
}

/** @param {string} eventId @param {string} author @param {string} at @param {string} text @param {() => Promise<void>} go */
function line(eventId, author, at, text, go) {
  return h("li", { "data-event": eventId }, h("button", { type: "button", onclick: () => void shown(() => (uncover(), go())) }, h("span", { class: "head" }, h("span", { class: "author" }, author), " ", timeElement(at)), h("span", { class: "snippet" }, text)));
}

/** @param {Chat} chat @param {string} q */
export async function showResults(chat, q) {
  const { results } = await chat.client.search({ q, in: [chat.guildId] });
  show(`Found: ${q}`, "Nothing was found.", results.map(({ author, created_at: at, subtitle, snippet, channel_id: channel, sequence, event_id: id }) =>
    line(id, `${chat.nameOf(author)} in #${subtitle}`, at, chat.shownText(snippet), () => goTo(channel, sequence, id))));
}

/** @param {Chat} chat */
export async function showPins(chat) {
  const pins = await chat.client.pins(chat.channelId);
  show("Pinned messages", "Nothing is pinned here.", pins.map(({ author, created_at: at, content, channel_id: channel, sequence, event_id: id }) =>
    line(id, chat.nameOf(author), at, chat.shownText(content), () => goTo(channel, sequence, id))));
}
