/** The messages of the open channel. */

import { ask, h, shown, timeElement } from "./dom.js";
import { place, redraw, redrawn } from "./redraw.js";

/** @typedef {import("./chat.js").Chat} Chat */
/** @typedef {import("./composer.js").Composer} Composer */
/** @typedef {import("../openguild/types.js").Message} Message */

const EMOJI = ["👍", "❤️", "😂", "🎉", "😮", "😢", "🙏", "👀"];
const NEAR_PX = 80; // this far from the end the list stays at the end

export class Timeline {
  /** @type {Map<string, {message: Message, name: string, element: HTMLElement}>} what is drawn */
  #drawn = new Map();
  #channelId = "";
  #isAtEnd = true;

  /** @param {Chat} chat @param {Composer} composer */
  constructor(chat, composer) {
    this.chat = chat;
    this.composer = composer;
    this.older = h("button", { type: "button", id: "older", onclick: () => void shown(() => this.#showOlder()) }, "Older messages");
    this.list = h("ol", { id: "messages", "aria-label": "Messages", onkeydown: this.#keydown.bind(this) });
    this.pending = h("ul", { id: "pending", "aria-label": "Not sent yet" });
    this.empty = h("p", { class: "empty" });
    this.newest = h("button", { type: "button", id: "newest", class: "primary", onclick: () => void shown(() => chat.open(chat.channelId)) }, "To the newest messages");
    this.element = h("div", { class: "timeline", tabindex: "-1", onscroll: () => (this.#isAtEnd = this.#distance() < NEAR_PX) }, this.older, this.empty, this.list, this.pending, this.newest);
    composer.onUp = () => this.#last()?.focus();
    new ResizeObserver(() => this.#isAtEnd && this.#toEnd()).observe(this.element);
  }

  draw() {
    const { chat, list } = this;
    if (chat.channelId !== this.#channelId) {
      this.#channelId = chat.channelId;
      this.#drawn.clear();
      this.#isAtEnd = true;
    }
    const messages = chat.messages ?? [];
    const drawn = this.#drawn;
    this.#drawn = new Map();
    const focused = document.activeElement;
    const item = focused?.closest(".message");
    const elements = messages.map((message) => {
      const name = `${chat.nameOf(message.author)} ${message.reply_preview ? chat.nameOf(message.reply_preview.author) : ""} ${chat.role}`;
      const former = drawn.get(message.event_id);
      const isLevel = former?.message === message && former.name === name;
      const element = isLevel ? former.element : redrawn(former?.element, this.#element(message));
      this.#drawn.set(message.event_id, { message, name, element });
      return element;
    });
    place(list, elements);
    const last = this.#last();
    for (const element of list.children) if (element instanceof HTMLElement) element.tabIndex = element === last ? 0 : -1;
    if (item instanceof HTMLElement && item.isConnected && !focused?.isConnected) item.focus(); // what may be done with it has changed
    const pending = chat.pending.filter(({ channelId }) => channelId === chat.channelId);
    redraw(this.pending, ...pending.map(({ content }) => h("li", { class: "message pending" },
      h("p", { class: "head" }, h("span", { class: "author" }, chat.nameOf({ id: chat.me.user_id })), " ", h("span", { class: "edited" }, "sending…")), h("p", { class: "text" }, chat.shownText(content)))));
    this.pending.hidden = pending.length === 0;
    this.older.hidden = !chat.hasOlder || messages.length === 0;
    this.newest.hidden = chat.isNewest || messages.length === 0;
    this.empty.textContent = chat.channel === undefined ? (chat.guild ? "This guild has no channel." : "Create a guild, or join one by an invite.")
      : chat.messages === null ? "Reading…" : messages.length === 0 ? "Nobody has written here yet." : "";
    this.empty.hidden = this.empty.textContent === "";
    if (this.#isAtEnd && chat.isNewest) this.#toEnd();
  }

  #last() {
    return /** @type {HTMLElement | null} */ (this.list.lastElementChild);
  }

  #distance() {
    return this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight;
  }

  #toEnd() {
    this.element.scrollTop = this.element.scrollHeight;
  }

  async #showOlder() {
    const before = this.element.scrollHeight;
    const first = this.list.firstElementChild;
    await this.chat.older();
    this.draw();
    this.element.scrollTop += this.element.scrollHeight - before;
    if (first instanceof HTMLElement) first.focus();
  }

  /** Show a message, of wherever it is. @param {string} channelId @param {number} sequence @param {string} eventId */
  async goTo(channelId, sequence, eventId) {
    if (this.chat.channelId !== channelId || !this.#drawn.has(eventId)) {
      await this.chat.open(channelId, sequence);
      this.#isAtEnd = false;
      this.draw();
    }
    const element = this.#drawn.get(eventId)?.element;
    this.#isAtEnd = false;
    element?.scrollIntoView({ block: "center" });
    element?.focus();
  }

  /** @param {KeyboardEvent} event */
  #keydown(event) {
    const item = /** @type {HTMLElement} */ (event.target).closest("li");
    if (event.key === "Escape") this.composer.text.focus();
    if (item === null || event.target !== item) return;
    const other = { ArrowUp: item.previousElementSibling, ArrowDown: item.nextElementSibling, Home: this.list.firstElementChild, End: this.#last() }[event.key];
    if (other instanceof HTMLElement) other.focus();
    else if (event.key === "ArrowDown") this.composer.text.focus();
    else return;
    event.preventDefault();
  }

  // --- one message ---------------------------------------------------------------------------------------

  /** @param {Message} message */
  #element(message) {
    const { chat } = this;
    const name = chat.nameOf(message.author);
    const isRedacted = message.redacted_by != null;
    const preview = message.reply_preview;
    return h("li", { class: "message", id: `m${message.event_id.replace("$", "-")}`, tabindex: "-1", "data-sequence": message.sequence },
      preview && h("button", {
        type: "button", class: "quote", "data-key": "quote", onclick: () => void shown(() => this.goTo(message.channel_id, preview.sequence, preview.event_id)),
      }, h("span", { class: "hidden" }, "Answers "), `↪ ${chat.nameOf(preview.author)}: `, preview.content == null ? "taken back" : chat.shownText(preview.content)),
      h("p", { class: "head" }, h("span", { class: "author" }, name), " ", timeElement(message.created_at),
        message.edited_at && h("button", { type: "button", class: "quiet edited", "data-key": "versions", onclick: () => void shown(() => this.#versions(message)) }, "edited"),
        message.pinned_at && h("span", { class: "pinned" }, "pinned")),
      h("p", { class: isRedacted ? "text redacted" : "text" }, isRedacted ? "This message was taken back." : chat.shownText(message.content)),
      this.#reactions(message),
      !isRedacted && this.#actions(message, name));
  }

  /** @param {Message} message */
  #reactions(message) {
    if (!message.reactions?.length) return null;
    const { client } = this.chat;
    return h("ul", { class: "reactions", "aria-label": "Reactions" }, ...message.reactions.map(({ emoji, count, me, reactors = [] }) => {
      const names = reactors.map((id) => this.chat.nameOf({ id })).join(", ");
      const toggle = () => void shown(() => client.react(message.channel_id, message.event_id, emoji, { action: me ? "remove" : "add" }));
      return h("li", { "data-key": emoji }, h("button", { type: "button", "aria-pressed": String(me), title: names, onclick: toggle }, `${emoji} ${count}`));
    }));
  }

  /** @param {Message} message @param {string} name */
  #actions(message, name) {
    const { chat, composer } = this;
    const { client } = chat;
    const isMine = message.author.id === chat.me.user_id;
    /** @param {string} key @param {string} label @param {() => unknown} act */
    const button = (key, label, act) => {
      /** @param {MouseEvent & {currentTarget: HTMLElement}} event */
      const onclick = ({ detail, currentTarget }) => {
        if (detail > 0) currentTarget.blur(); // by a pointer: then the actions do not stay open; by keyboard the focus comes back
        void shown(async () => act());
      };
      return h("button", { type: "button", class: "quiet", "data-key": key, onclick }, label);
    };
    const { channel_id: channelId, event_id: eventId } = message;
    return h("div", { class: "actions", role: "group", "aria-label": `Message of ${name}` },
      button("reply", "Reply", () => composer.reply(message)),
      button("react", "React", () => this.#react(message)),
      isMine && button("edit", "Edit", () => composer.edit(message)),
      chat.mayModerate && (message.pinned_at ? button("pin", "Unpin", () => client.unpin(channelId, eventId)) : button("pin", "Pin", () => client.pin(channelId, eventId))),
      (isMine || chat.mayModerate) && button("delete", "Delete", () => this.#redact(message, isMine)));
  }

  /** @param {Message} message */
  async #react(message) {
    const field = h("input", { name: "emoji", id: "emoji", maxlength: 16, autocomplete: "off" });
    const choices = EMOJI.map((emoji) => h("button", {
      type: "button", class: "emoji", "aria-label": `React with ${emoji}`, onclick: () => ((field.value = emoji), field.form?.requestSubmit()),
    }, emoji));
    const answer = await ask({ title: "Add a reaction", submit: "Add", extra: h("div", {}, h("p", { class: "choices" }, ...choices), h("p", {}, h("label", { for: "emoji" }, "Another emoji"), field)) });
    if (answer?.["emoji"]) await this.chat.client.react(message.channel_id, message.event_id, answer["emoji"]);
  }

  /** @param {Message} message @param {boolean} isMine */
  async #redact(message, isMine) {
    const answer = await ask({
      title: "Delete this message?", text: "Its text is erased on the server, for everybody.", submit: "Delete",
      fields: [{ name: "reason", label: isMine ? "Reason, if you like" : "Reason", required: !isMine, maxlength: 512 }],
    });
    if (answer !== null) await this.chat.client.redact(message.channel_id, message.event_id, { reason: answer["reason"] || undefined });
  }

  /** @param {Message} message */
  async #versions(message) {
    const versions = await this.chat.client.versions(message.channel_id, message.event_id);
    await ask({
      title: "Versions of this message", submit: "Close",
      extra: h("ol", { class: "versions" }, ...versions.map(({ content, created_at: at }) => h("li", {}, timeElement(at), " ", content == null ? "taken back" : this.chat.shownText(content)))),
    });
  }
}
