/** The composer: new messages, replies, edits, and the users who are typing. */

import { h, shown } from "./dom.js";
import { randomKey } from "../openguild/keys.js";
import { redraw } from "./redraw.js";

/** @typedef {import("./chat.js").Chat} Chat */
/** @typedef {import("../openguild/types.js").Message} Message */

const TYPING_EVERY_MS = 3_000;
const TOUCH = "(hover: none) and (pointer: coarse)"; // an on-screen keyboard has no Shift+Enter, so Enter is a new line
const MAX_CHARS = 4_000; // PROTOCOL 1.3.6
const NO_TEXT = "A message cannot be empty. To remove it, delete it.";

/** An unsent text of a channel; `before`: the text that an edit has interrupted.
 * @typedef {{text: string, replyTo: Message | null, editing: Message | null, before: string}} Draft */

/** @returns {Draft} */
const nothing = () => ({ text: "", replyTo: null, editing: null, before: "" });

/**
 * Return a message of which only the id is known: its page is not read.
 * @param {string} eventId @param {string} channelId
 * @returns {Message}
 */
const notRead = (eventId, channelId) => ({ event_id: eventId, channel_id: channelId, sequence: 0, author: { id: "" }, created_at: "", content: "an earlier message" });

/** @type {Map<string, Map<string, Draft>>} user -> channel -> draft; drafts outlive a session that ends */
const written = new Map();

/** Forget all drafts: the user has logged out. */
export function forgetDrafts() {
  written.clear();
}

/** @typedef {[string, [string, Draft][]][]} KeptDrafts by user and channel */

/**
 * Return the drafts for storage across a reload, without the text of quoted messages: they may be redacted meanwhile.
 * @returns {KeptDrafts}
 */
export function keptDrafts() {
  /** @param {Message | null} message */
  const withoutText = (message) => message && { ...message, content: null };
  return [...written].map(([userId, drafts]) => [userId, [...drafts].filter(([, { text, before, replyTo }]) => text !== "" || before !== "" || replyTo !== null)
    .map(([channelId, draft]) => [channelId, { ...draft, replyTo: withoutText(draft.replyTo), editing: withoutText(draft.editing) }])]);
}

/** @param {KeptDrafts} kept */
export function takeUpDrafts(kept) {
  for (const [userId, drafts] of kept) written.set(userId, new Map(drafts));
}

export class Composer {
  #draft = nothing(); // its `text` is stale while it is open: see `this.text.value`
  #toldAt = -Infinity;
  #channelId = "";
  /** @type {() => void} called when the up arrow leaves an empty composer */
  onUp = () => {};
  /** @type {() => void} called when a new message is sent */
  onSend = () => {};

  /** @param {Chat} chat */
  constructor(chat) {
    this.chat = chat;
    this.text = h("textarea", { id: "composer-text", rows: 1, dir: "auto", "aria-describedby": "composer-limit composer-context", onkeydown: this.#keydown.bind(this), oninput: this.#input.bind(this) });
    this.label = h("label", { for: "composer-text", class: "hidden" }, "Message");
    this.context = h("p", { id: "composer-context" });
    this.limit = h("p", { id: "composer-limit" });
    this.typing = h("p", { id: "typing", "aria-live": "polite" });
    /** Keep the focus, and with it the on-screen keyboard. @param {MouseEvent} event */
    const onmousedown = (event) => event.preventDefault();
    const send = h("button", { class: "primary", id: "send", onmousedown }, "Send");
    /** @param {SubmitEvent} event */
    const onsubmit = (event) => {
      event.preventDefault();
      void shown(() => this.#send());
    };
    this.element = h("form", { class: "composer", onsubmit }, this.typing, this.limit, this.context,
      h("div", { class: "row" }, this.label, this.text, send));
  }

  draw() {
    const { chat } = this;
    if (chat.channelId !== this.#channelId) {
      this.keep();
      this.#channelId = chat.channelId;
      this.#draft = written.get(chat.me.user_id)?.get(chat.channelId) ?? nothing();
      this.#write(this.#draft.text);
    }
    this.element.hidden = chat.channel === undefined;
    this.text.placeholder = `Message #${chat.channel?.name ?? ""}`;
    const until = chat.timedOutUntil; // only a hint: this machine's clock may be wrong, and the server decides
    this.limit.textContent = until > 0 ? `You are timed out until ${new Date(until).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}: you can read, but not write.` : "";
    const { editing, replyTo } = this.#draft;
    const chosen = editing ?? replyTo;
    if (chosen === null) this.context.replaceChildren();
    else {
      const of = chat.history.messages?.find(({ event_id: id }) => id === chosen.event_id) ?? chosen; // it may be redacted by now
      const what = editing !== null ? "Editing: " : `Reply to ${chat.nameOf(of.author)}: `;
      redraw(this.context, h("span", {}, what, of.redacted_by != null ? "deleted" : chat.shownText(of.content)), h("button", { type: "button", class: "quiet", "aria-label": "Cancel", onclick: () => this.cancel() }, "✕"));
    }
    const names = chat.typing.users.map(({ id, preview }) => `${chat.nameOf({ id })} is typing${preview ? `: ${preview}` : "…"}`);
    const text = names.length > 3 ? "Several people are typing…" : names.join(" · ");
    if (this.typing.textContent !== text) this.typing.textContent = text;
  }

  /** Keep the draft for when its channel is opened again. */
  keep() {
    const { user_id: id } = this.chat.me;
    const drafts = written.get(id) ?? new Map();
    written.set(id, drafts.set(this.#channelId, { ...this.#draft, text: this.text.value }));
  }

  /** Erase the text of a redacted message from drafts that reply to it. @param {string} eventId */
  forget(eventId) {
    for (const draft of [this.#draft, ...[...written.values()].flatMap((drafts) => [...drafts.values()])]) {
      const { replyTo } = draft;
      if (replyTo?.event_id === eventId) draft.replyTo = { ...replyTo, content: null, redacted_by: "" };
    }
  }

  /** Return the texts that are not sent if this channel is the open one, else an empty text. @param {string} channelId */
  unsentIn(channelId) {
    const { chat } = this;
    if (channelId !== this.#channelId || channelId !== chat.channelId) return ""; // the end of a log is reported twice
    const pending = chat.outbox.items.filter((outgoing) => outgoing.channelId === channelId && outgoing.sequence === null);
    return [...pending.map(({ content }) => chat.shownText(content)), this.#draft.before, this.text.value].filter((text) => text.trim() !== "").join("\n\n");
  }

  /** @param {Message} message */
  reply(message) {
    this.cancel();
    this.#draft.replyTo = message;
    this.draw();
    this.text.focus();
  }

  /** @param {Message} message */
  edit(message) {
    this.cancel();
    Object.assign(this.#draft, { editing: message, before: this.text.value });
    this.#write(this.chat.shownText(message.content));
    this.draw();
    this.text.focus();
  }

  /** Cancel the reply or the edit. */
  cancel() {
    if (this.#draft.editing !== null) this.#write(this.#draft.before);
    this.#draft = nothing();
    this.draw();
  }

  /** Put an unsent message back into the composer. @param {import("./outbox.js").Outgoing} outgoing */
  takeBack(outgoing) {
    this.cancel();
    const { content, edits, replyTo } = outgoing;
    /** @param {string} eventId */
    const messageOf = (eventId) => this.chat.history.messages?.find(({ event_id: id }) => id === eventId) ?? notRead(eventId, outgoing.channelId);
    if (edits !== undefined) this.edit(messageOf(edits));
    else if (replyTo !== undefined) this.reply(messageOf(replyTo));
    const text = this.chat.shownText(content);
    this.#write(this.#draft.editing !== null || this.text.value === "" ? text : `${text}\n${this.text.value}`);
    this.chat.outbox.discard(outgoing);
    this.text.focus();
  }

  async #send() {
    const { chat, text } = this;
    const channelId = this.#channelId; // the draft's channel: another one may be open by now
    const content = chat.storedText(text.value.trim());
    if (content === "" && this.#draft.editing !== null) throw new Error(NO_TEXT);
    if (content === "" || channelId === "") return;
    const count = [...content].length;
    if (count > MAX_CHARS) throw new Error(`A message has at most ${MAX_CHARS} characters, and this one ${count}.`);
    const { replyTo, editing, before } = this.#draft;
    this.#draft = nothing();
    this.#write(before);
    this.#toldAt = -Infinity;
    this.draw();
    if (editing === null) this.onSend();
    await chat.outbox.send({ channelId, content, replyTo: replyTo?.event_id, edits: editing?.event_id, key: randomKey(), failure: null, sequence: null });
  }

  /** @param {string} text */
  #write(text) {
    this.text.value = text;
    this.#grow();
  }

  /** @param {KeyboardEvent} event */
  #keydown(event) {
    if (event.isComposing || event.keyCode === 229) return; // the input method handles the key; in Safari only the code says so
    const sends = event.ctrlKey || event.metaKey || !(event.shiftKey || matchMedia(TOUCH).matches);
    if (event.key === "Enter" && sends) {
      event.preventDefault();
      this.element.requestSubmit();
    } else if (event.key === "Escape") this.cancel();
    else if (event.key === "ArrowUp" && this.text.value === "") {
      event.preventDefault();
      this.onUp();
    }
  }

  #input() {
    this.#grow();
    if (this.#draft.editing !== null || this.text.value.trim() === "" || performance.now() - this.#toldAt < TYPING_EVERY_MS) return;
    this.#toldAt = performance.now();
    this.chat.client.typing(this.#channelId).catch((failure) => console.debug("typing was not told:", failure)); // it may be lost
  }

  #grow() {
    this.text.rows = Math.min(8, this.text.value.split("\n").length);
  }
}
