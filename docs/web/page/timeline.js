/** The messages of the open channel. */

import { ask, h, shown, timeElement } from "./dom.js";
import { redraw, Rows } from "./redraw.js";

/** @typedef {import("./chat.js").Chat} Chat */
/** @typedef {import("./composer.js").Composer} Composer */
/** @typedef {import("../openguild/types.js").Message} Message */

const EMOJI = ["👍", "❤️", "😂", "🎉", "😮", "😢", "🙏", "👀"];
const NEAR_PX = 80; // within this distance of the end the list stays at the end

/**
 * Let Tab reach the buttons of a message (0), or skip them (-1). There are hundreds of buttons; Tab should reach only those of the
 * focused message.
 * @param {EventTarget | null} within
 * @param {0 | -1} tabIndex
 */
function reach(within, tabIndex) {
  const message = within instanceof Element ? within.closest(".message") : null;
  for (const button of message?.querySelectorAll("button") ?? []) button.tabIndex = tabIndex;
}

export class Timeline {
  #channelId = "";
  /** The sequence of the newest message that was in view. */
  #seen = 0;

  /** @param {Chat} chat @param {Composer} composer */
  constructor(chat, composer) {
    this.chat = chat;
    this.composer = composer;
    this.older = h("button", { type: "button", id: "older", onclick: () => void shown(() => this.#showOlder()) }, "Older messages");
    this.list = h("ol", { id: "messages", "aria-label": "Messages", onkeydown: this.#keydown.bind(this) });
    this.rows = new Rows(this.list);
    this.list.addEventListener("focusin", ({ target }) => reach(target, 0));
    this.list.addEventListener("focusout", ({ target }) => reach(target, -1));
    this.pending = h("ul", { id: "pending", "aria-label": "Not sent yet" });
    this.empty = h("p", { class: "empty" });
    /** @param {MouseEvent} event */
    const onclick = ({ detail }) => {
      void shown(() => this.toNewest());
      if (detail === 0) composer.text.focus(); // pressed by keyboard, and now hidden
    };
    this.newer = h("button", { type: "button", id: "newer", onclick: () => void shown(() => this.#showNewer()) }, "Newer messages");
    this.newest = h("button", { type: "button", id: "newest", class: "primary", onclick }, "To the newest messages");
    this.element = h("div", { class: "timeline", tabindex: "-1", onscroll: () => this.#scrolled() }, this.older, this.empty, this.list, this.newer, this.pending, this.newest);
    composer.onUp = () => this.#last()?.focus();
    composer.onSend = () => void shown(() => this.toNewest());
    new ResizeObserver(() => chat.history.isAtEnd && this.#toEnd()).observe(this.element);
  }

  draw() {
    const { chat, list } = this;
    if (chat.channelId !== this.#channelId) {
      this.#channelId = chat.channelId;
      this.rows.forget();
    }
    const messages = chat.history.messages ?? [];
    const focused = document.activeElement;
    const item = focused?.closest(".message");
    const { role } = chat;
    this.rows.draw(messages.map((message) => ({ key: message.event_id, state: [message, role, ...this.#names(message)], make: () => this.#element(message) })));
    const last = this.#last();
    for (const element of list.querySelectorAll(':scope > [tabindex="0"]')) if (element !== last) element.setAttribute("tabindex", "-1");
    last?.setAttribute("tabindex", "0");
    if (item instanceof HTMLElement && item.isConnected) {
      if (!focused?.isConnected) item.focus(); // the focused button is gone
      reach(item, 0);
    }
    const pending = chat.outbox.items.filter(({ channelId, edits, failure }) => channelId === chat.channelId && (edits === undefined || failure !== null));
    redraw(this.pending, ...pending.map((outgoing) => this.#pending(outgoing)));
    this.pending.hidden = pending.length === 0;
    this.older.hidden = !chat.history.hasOlder || messages.length === 0;
    this.newer.hidden = chat.history.isNewest || messages.length === 0;
    this.empty.textContent = this.#emptyText();
    this.empty.hidden = this.empty.textContent === "";
    if (chat.history.isAtEnd && chat.history.isNewest) this.#toEnd();
    this.#drawNewest();
  }

  /** Return the text that is shown if there are no messages. */
  #emptyText() {
    const { channel, channels, guild, guilds, history } = this.chat;
    if (guild === undefined) return guilds.size > 0 ? "Choose a guild." : "Create a guild, or join one by an invite.";
    if (channel === undefined) return channels.length > 0 ? "Choose a channel." : "This guild has no channel.";
    if (history.hasFailed) return "The messages could not be read. Choose the channel to try again.";
    if (history.messages === null) return "Reading…";
    return history.messages.length === 0 ? "Nobody has written here yet." : "";
  }

  #drawNewest() {
    const { isAtEnd, isNewest, messages } = this.chat.history;
    const last = messages?.at(-1)?.sequence ?? 0;
    if (isAtEnd) this.#seen = last;
    this.newest.hidden = last === 0 || (isNewest && last <= this.#seen);
  }

  #scrolled() {
    const { chat } = this;
    chat.history.isAtEnd = this.#distance() < NEAR_PX;
    this.#drawNewest();
    if (chat.history.isAtEnd) chat.markRead();
  }

  /** Go to the newest messages, as after sending one. */
  async toNewest() {
    const { chat } = this;
    chat.history.isAtEnd = true;
    if (chat.history.isNewest) this.draw();
    else await chat.open(chat.channelId);
  }

  /** Return the names shown in a message: they may become known after it is drawn. @param {Message} message */
  #names({ author, content, reactions, reply_preview: preview }) {
    const { chat } = this;
    /** @param {string | null | undefined} text */
    const mentions = (text) => (text?.includes("<@") ? chat.shownText(text) : "");
    return [
      chat.nameOf(author), mentions(content), preview ? chat.nameOf(preview.author) : "", mentions(preview?.content),
      reactions?.map(({ reactors = [] }) => reactors.map((id) => chat.nameOf({ id })).join(", ")).join("\n"),
    ];
  }

  /** @param {import("./outbox.js").Outgoing} outgoing */
  #pending(outgoing) {
    const { chat, composer } = this;
    const { content, failure, key } = outgoing;
    /** @param {string} label @param {() => unknown} act */
    const button = (label, act) => h("button", { type: "button", "data-key": label, onclick: () => void shown(async () => act()) }, label);
    return h("li", { class: failure === null ? "message pending" : "message", "data-key": key },
      h("p", { class: "head" }, h("span", { class: "author" }, chat.nameOf({ id: chat.me.user_id })), " ",
        failure === null ? h("span", { class: "edited" }, "sending…") : h("span", { class: "problem", role: "alert" }, `not sent: ${failure}`)),
      h("p", { class: "text" }, chat.shownText(content)),
      failure !== null && h("p", { class: "buttons" }, button("Send again", () => chat.outbox.send(outgoing)),
        button("Edit", () => composer.takeBack(outgoing)), button("Discard", () => chat.outbox.discard(outgoing))));
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
    const first = this.list.firstElementChild;
    await this.chat.history.older();
    const before = first?.getBoundingClientRect().top ?? 0;
    this.draw();
    if (!(first instanceof HTMLElement) || !first.isConnected) return; // another channel is open
    this.element.scrollTop += first.getBoundingClientRect().top - before;
    first.focus({ preventScroll: true });
  }

  async #showNewer() {
    const last = this.#last();
    const before = last?.getBoundingClientRect().top ?? 0;
    await this.chat.history.newer();
    this.draw();
    if (last === null || !last.isConnected) return; // another channel is open
    this.element.scrollTop += last.getBoundingClientRect().top - before; // the oldest messages may be gone
    const next = last.nextElementSibling;
    if (next instanceof HTMLElement) next.focus({ preventScroll: true });
    this.#scrolled();
  }

  /** Show a message of any channel. @param {string} channelId @param {number} sequence @param {string} eventId */
  async goTo(channelId, sequence, eventId) {
    if (this.chat.channelId !== channelId || this.rows.get(eventId) === undefined) {
      await this.chat.open(channelId, sequence);
      this.draw();
    }
    const element = this.rows.get(eventId);
    element?.scrollIntoView({ block: "center" });
    element?.focus();
    this.#scrolled();
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
        type: "button", class: "quote", tabindex: "-1", "data-key": "quote", onclick: () => void shown(() => this.goTo(message.channel_id, preview.sequence, preview.event_id)),
      }, h("span", { class: "hidden" }, "Answers "), `↪ ${chat.nameOf(preview.author)}: `, preview.content == null ? "deleted" : chat.shownText(preview.content)),
      h("p", { class: "head" }, h("span", { class: "author" }, name), " ", timeElement(message.created_at),
        message.edited_at && h("button", { type: "button", class: "quiet edited", tabindex: "-1", "data-key": "versions", onclick: () => void shown(() => this.#versions(message)) }, "edited"),
        message.pinned_at && h("span", { class: "pinned" }, "pinned")),
      h("p", { class: isRedacted ? "text redacted" : "text" }, isRedacted ? "This message was deleted." : chat.shownText(message.content)),
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
      return h("li", { "data-key": emoji }, h("button", { type: "button", tabindex: "-1", "aria-pressed": String(me), title: names, onclick: toggle }, `${emoji} ${count}`));
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
        if (detail > 0) currentTarget.blur(); // after a pointer press, so that the actions close
        void shown(async () => act());
      };
      return h("button", { type: "button", class: "quiet", tabindex: "-1", "data-key": key, onclick }, label);
    };
    const { channel_id: channelId, event_id: eventId } = message;
    return h("div", { class: "actions", role: "group", "aria-label": `Message of ${name}` },
      button("reply", "Reply", () => composer.reply(message)),
      button("react", "React", () => this.#react(message)),
      isMine && button("edit", "Edit", () => composer.edit(message)),
      chat.mayModerate && (message.pinned_at ? button("pin", "Unpin", () => client.unpin(channelId, eventId)) : button("pin", "Pin", () => client.pin(channelId, eventId))),
      chat.mayModerate && Boolean(message.reactions?.length) && button("clear", "Clear reactions", () => this.#clear(message)),
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

  /** Ask which reactions of a message to clear, and clear them. @param {Message} message */
  async #clear(message) {
    const uses = message.reactions ?? [];
    const options = uses.map(({ emoji, count }, place) => h("option", { value: place }, `${emoji} ${count}`));
    const which = h("select", { name: "which", id: "which", required: true },
      uses.length > 1 && h("option", { value: "" }, "Choose"), ...options, uses.length > 1 && h("option", { value: "all" }, "All"));
    const answer = await ask({
      title: "Clear reactions?", text: "They are removed for all users.", submit: "Clear",
      fields: [{ name: "reason", label: "Reason (optional)", maxlength: 512 }], extra: h("p", {}, h("label", { for: "which" }, "Reactions"), which),
    });
    if (answer === null) return;
    const emoji = answer["which"] === "all" ? undefined : /** @type {import("../openguild/types.js").Reaction} */ (uses[Number(answer["which"])]).emoji;
    await this.chat.client.clearReactions(message.channel_id, message.event_id, { emoji, reason: answer["reason"] || undefined });
  }

  /** @param {Message} message @param {boolean} isMine */
  async #redact(message, isMine) {
    const answer = await ask({
      title: "Delete this message?", text: "Its text is erased on the server, for everybody.", submit: "Delete",
      fields: [{ name: "reason", label: isMine ? "Reason (optional)" : "Reason", required: !isMine, maxlength: 512 }],
    });
    if (answer !== null) await this.chat.client.redact(message.channel_id, message.event_id, { reason: answer["reason"] || undefined });
  }

  /** @param {Message} message */
  async #versions(message) {
    const { chat } = this;
    const { channel_id: channel, event_id: id } = message;
    const versions = await chat.client.versions(channel, id);
    if (!chat.mayShow(channel, id)) return;
    const lines = versions.map(({ content, created_at: at }) => h("li", { "data-event": id, "data-channel": channel },
      timeElement(at), " ", content == null ? "deleted" : chat.shownText(content)));
    await ask({ title: "Versions of this message", submit: "Close", extra: h("ol", { class: "versions" }, ...lines) });
  }
}
