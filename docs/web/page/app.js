/** The layout of the chat: a header with the state of the connection, navigation, timeline, composer, and side panel. */

import { OutcomeUnknown } from "../openguild.js";
import { announce, ask, byId, choose, failureText, forget, h, redrawTimes, showNotice, shown } from "./dom.js";
import { Composer, forgetDrafts } from "./composer.js";
import { forgetUnsent } from "./outbox.js";
import { manageChannel } from "./manage.js";
import { setGoTo, showPins, showResults } from "./panel.js";
import { hideDrawers, Sidebar } from "./sidebar.js";
import { Timeline } from "./timeline.js";

/** @typedef {import("../openguild.js").Client} Client */
/** @typedef {import("./chat.js").Chat} Chat */
/** @typedef {import("./chat.js").Part} Part */

export class App {
  /** @type {Chat | null} */
  #chat = null;
  /** @type {Set<Part>} */
  #dirty = new Set();
  /** @type {Sidebar | null} */
  #sidebar = null;
  /** @type {Timeline | null} */
  #timeline = null;
  /** @type {Composer | null} */
  #composer = null;
  #shownChannel = "";
  /** @type {HTMLElement | null} */
  #root = null;

  /** @param {Client} client @param {() => void} leave */
  constructor(client, leave) {
    this.client = client;
    this.leave = leave;
  }

  /** @param {Chat} chat */
  show(chat) {
    this.#chat = chat;
    const composer = new Composer(chat);
    const timeline = new Timeline(chat, composer);
    const sidebar = new Sidebar(chat);
    setGoTo((channelId, sequence, eventId) => timeline.goTo(channelId, sequence, eventId));
    [this.#composer, this.#timeline, this.#sidebar] = [composer, timeline, sidebar];
    const search = h("input", { type: "search", id: "search", name: "q", required: true, maxlength: 256, placeholder: "Search", "aria-label": "Search this guild" });
    /** @param {SubmitEvent} event */
    const find = (event) => {
      event.preventDefault();
      void shown(() => showResults(chat, search.value));
    };
    const appear = async () => {
      try {
        await chat.setStatus(/** @type {any} */ (presence.value));
      } finally {
        presence.value = chat.status;
      }
    };
    const presence = h("select", { id: "presence", "aria-label": "How you appear", onchange: () => void shown(appear) },
      h("option", { value: "online" }, "Online"), h("option", { value: "idle" }, "Idle"), h("option", { value: "offline" }, "Invisible"));
    presence.value = chat.status;
    sidebar.navigation.append(h("div", { class: "account" }, h("span", { id: "me" }), presence,
      h("button", { type: "button", id: "account", "aria-haspopup": "dialog", onclick: () => void shown(() => this.#manageAccount()) }, "Account"),
      h("button", { type: "button", id: "log-out", onclick: () => void shown(() => this.#logOut()) }, "Log out")));
    byId("view").replaceChildren(h("div", { class: "app", id: "app" },
      h("header", { class: "top" },
        h("button", { type: "button", class: "only-narrow", id: "open-channels", "aria-controls": "channels", "aria-expanded": "false", onclick: () => this.#toggle("channels") }, "☰", h("span", { class: "hidden" }, "Guilds and channels")),
        h("span", { class: "brand" }, "OpenGuild"),
        h("p", { id: "status", role: "status" }),
        h("button", { type: "button", id: "connect-now", hidden: true, onclick: () => this.#connect() }),
        h("button", { type: "button", class: "only-narrow", id: "open-members", "aria-controls": "members", "aria-expanded": "false", onclick: () => this.#toggle("members") }, "Members")),
      sidebar.navigation,
      h("main", { id: "main", "aria-labelledby": "channel-title", onclick: () => hideDrawers() },
        h("div", { class: "channel-head" },
          h("div", {}, h("h1", { id: "channel-title", tabindex: "-1" }), h("p", { id: "topic" })),
          h("button", { type: "button", id: "manage-channel", "aria-haspopup": "dialog", "aria-label": "Manage channel", hidden: true, onclick: () => void shown(() => manageChannel(chat)) }, "⋯"),
          h("form", { role: "search", onsubmit: find }, search),
          h("button", { type: "button", id: "show-pins", onclick: () => void shown(() => showPins(chat)) }, "Pins")),
        timeline.element, composer.element),
      h("aside", { id: "panel", hidden: true, "aria-labelledby": "panel-title" }),
      sidebar.members));
    const root = (this.#root = byId("app"));
    for (const part of /** @type {Part[]} */ (["status", "guilds", "messages"])) this.changed(part);
    const timer = setInterval(() => (root.isConnected ? this.#tick() : clearInterval(timer)), 500);
  }

  /** Show where to create or join a guild, also on narrow screens, which hide it. */
  showNavigation() {
    const isHidden = getComputedStyle(byId("channels")).display === "none";
    if (isHidden) this.#toggle("channels");
  }

  /** @param {"channels" | "members"} which */
  #toggle(which) {
    const isShown = byId("app").classList.contains(`shows-${which}`);
    hideDrawers();
    if (isShown) return;
    byId("app").classList.add(`shows-${which}`);
    byId(`open-${which}`).setAttribute("aria-expanded", "true");
    byId(which).querySelector("button")?.focus();
  }

  async #manageAccount() {
    const chosen = await choose("Account", { password: "Change password", deletion: "Delete account" });
    if (chosen === "password") await this.#changePassword();
    if (chosen === "deletion") await this.#deleteAccount();
  }

  async #changePassword() {
    const given = await ask({
      title: "Change password", text: "All your other devices are logged out.", submit: "Change",
      fields: [
        { name: "current", label: "Current password", required: true, maxlength: 1_024, secret: "current-password" },
        { name: "next", label: "New password, at least 8 characters", required: true, minlength: 8, maxlength: 1_024, secret: "new-password" },
      ],
    });
    if (given === null) return;
    try {
      await this.client.changePassword(given["current"] ?? "", given["next"] ?? "");
    } catch (failure) {
      if (!(failure instanceof OutcomeUnknown)) throw failure;
      throw new Error("The server has not answered: your password may be the new one or the old one. Enter the new password in both fields to find out.");
    }
    showNotice("Your password is changed. All your other devices are logged out.");
  }

  async #deleteAccount() {
    const given = await ask({
      title: "Delete account", submit: "Delete for good",
      text: "You leave all guilds, and nobody can bring the account back. Your messages stay: first delete those that you do not want to leave behind.",
      fields: [{ name: "current", label: "Password", required: true, maxlength: 1_024, secret: "current-password" }],
    });
    if (given === null) return;
    try {
      await this.client.deleteAccount(given["current"] ?? "");
    } catch (failure) {
      if (!(failure instanceof OutcomeUnknown)) throw failure;
      throw new Error("The server has not answered: try again. If you are logged out, your account is deleted.");
    }
    await this.#logOut();
  }

  async #logOut() {
    const button = /** @type {HTMLButtonElement} */ (byId("log-out"));
    [button.disabled, button.textContent] = [true, "Logging out…"]; // it is retried for a minute
    try {
      await this.client.logout();
    } catch (failure) {
      const answer = await ask({
        title: "Log out of this tab only?", submit: "Log out",
        text: `The session could not be ended on the server: ${failureText(failure)}. This tab can forget it. On the server it lasts until it expires.`,
      });
      if (answer === null) return;
      this.client.close();
    } finally {
      [button.disabled, button.textContent] = [false, "Log out"];
    }
    forgetDrafts();
    forgetUnsent();
    this.leave();
  }

  /** Keep drafts and unsent messages: the session has ended, or the user leaves the page or the tab. */
  keep() {
    this.#composer?.keep();
    this.#chat?.outbox.keep(this.#chat.me.user_id);
  }

  /** Mark a part as changed, and draw it with the next frame: once for many changes. @param {Part} part */
  changed(part) {
    if (this.#dirty.size === 0) requestAnimationFrame(() => this.draw());
    if (this.#dirty.size === 0 && document.hidden) setTimeout(() => this.draw()); // a hidden page gets no frames
    this.#dirty.add(part);
  }

  /** Announce another user's message to screen readers. @param {import("../openguild/types.js").Message} message */
  heard(message) {
    announce(`${this.#chat?.nameOf(message.author)}: ${this.#chat?.shownText(message.content)}`);
  }

  /** Remove a redacted message, or the messages of a channel that is gone, from view. @param {string} id */
  forget(id) {
    announce(null);
    forget(id);
    this.#composer?.forget(id);
    const text = this.#composer?.unsentIn(id) ?? "";
    if (text !== "") void this.#showUnsent(text);
  }

  /** Show the text that the user was writing in a channel that is gone, so that they can copy it. @param {string} text */
  async #showUnsent(text) {
    const area = h("textarea", { id: "unsent", rows: 6, readonly: true, dir: "auto", "aria-label": "Unsent text", onfocus: () => area.select() });
    area.value = text;
    await ask({ title: "Your text was not sent", text: "The channel is gone. Copy your text if you need it.", submit: "Close", extra: h("p", {}, area) });
    if (this.#root?.isConnected) byId("channel-title").focus(); // the composer is hidden
  }

  /** Draw the parts that have changed. */
  draw() {
    const chat = this.#chat;
    if (this.#dirty.size === 0 || chat === null || !this.#root?.isConnected) return; // not connected: another user has logged in
    const dirty = new Set(this.#dirty);
    const focused = document.activeElement;
    this.#dirty.clear();
    const all = dirty.has("guilds");
    if (dirty.has("status")) this.#showStatus();
    if (all || dirty.has("channels")) this.#sidebar?.drawNavigation();
    if (all || dirty.has("members")) this.#sidebar?.drawMembers();
    if (all || dirty.has("messages")) this.#timeline?.draw();
    if (all || dirty.has("typing") || dirty.has("messages")) this.#composer?.draw();
    const isElsewhere = document.activeElement !== focused && document.activeElement !== document.body;
    if (focused instanceof HTMLElement && !focused.checkVisibility() && !isElsewhere) byId("channel-title").focus();
    if (all) this.#drawHead(chat); // last: it moves the focus to an element drawn above
    const unread = [...chat.guilds.keys()].reduce((sum, id) => sum + chat.unreadOf(id).unread, 0);
    document.title = `${unread > 0 ? `(${unread}) ` : ""}${chat.channel ? `#${chat.channel.name} – ` : ""}OpenGuild`;
  }

  /** @param {Chat} chat */
  #drawHead(chat) {
    byId("me").textContent = chat.me.username;
    byId("channel-title").textContent = chat.channel ? `#${chat.channel.name}` : (chat.guild?.guild.name ?? "Welcome");
    byId("topic").textContent = chat.channel?.topic ?? "";
    byId("manage-channel").hidden = chat.channel === undefined || !chat.mayModerate;
    byId("main").classList.toggle("is-empty", chat.channel === undefined);
    if (chat.channelId === this.#shownChannel) return;
    this.#shownChannel = chat.channelId;
    hideDrawers();
    const mayFocus = document.querySelector("dialog") === null && matchMedia("(hover: hover)").matches; // else a keyboard would cover half the screen
    if (chat.channelId !== "" && mayFocus) byId("composer-text").focus();
  }

  #day = new Date().toDateString();

  #tick() {
    this.#showStatus();
    const day = new Date().toDateString();
    if (day !== this.#day) redrawTimes();
    if ((this.#sidebar?.nextEnd ?? Infinity) <= Date.now()) this.changed("guilds");
    this.#day = day;
  }

  #since = 0;
  #told = "";

  #showStatus() {
    const line = document.getElementById("status");
    if (line === null) return;
    const { state, reason, retryMs } = this.client.status;
    const key = `${state} ${reason} ${retryMs}`;
    if (key !== this.#told) [this.#told, this.#since] = [key, performance.now()];
    const left = Math.ceil(((retryMs ?? 0) - (performance.now() - this.#since)) / 1_000);
    const texts = {
      connecting: "Connecting…", online: "Connected", ended: "Not connected", draining: "The server restarts…",
      waiting: retryMs === null ? "Renewing the session…" : "Connection lost",
    };
    const text = texts[state];
    line.dataset["state"] = state;
    const countdown = state === "waiting" && left > 0 ? ` – next attempt in ${left} s` : "";
    if (line.firstChild?.textContent !== text) line.replaceChildren(text, h("span", { "aria-hidden": "true" }));
    const shownCountdown = line.querySelector("span");
    if (shownCountdown !== null && shownCountdown.textContent !== countdown) shownCountdown.textContent = countdown;
    const connect = byId("connect-now");
    connect.hidden = !(state === "ended" || (state === "waiting" && left > 1));
    const label = state === "ended" ? "Load the page again" : "Connect now";
    if (connect.textContent !== label) connect.textContent = label;
  }

  /** Connect at once. A client that has ended for good needs a new page, which keeps drafts and unsent messages. */
  #connect() {
    if (this.client.status.state === "ended") location.reload();
    else this.client.wake();
  }
}
