/** Writing: new messages, replies, edits, and who else is writing. */

import { h, shown } from "./dom.js";
import { redraw } from "./redraw.js";

/** @typedef {import("./chat.js").Chat} Chat */
/** @typedef {import("../openguild/types.js").Message} Message */

const TYPING_EVERY_MS = 3_000;

export class Composer {
  /** @type {Message | null} */
  #replyTo = null;
  /** @type {Message | null} */
  #editing = null;
  #toldAt = 0;
  #channelId = "";
  /** @type {() => void} called with the arrow key that leaves an empty composer upwards */
  onUp = () => {};

  /** @param {Chat} chat */
  constructor(chat) {
    this.chat = chat;
    this.text = h("textarea", { id: "composer-text", rows: 1, maxlength: 4_000, "aria-describedby": "composer-context", onkeydown: this.#keydown.bind(this), oninput: this.#input.bind(this) });
    this.label = h("label", { for: "composer-text", class: "hidden" }, "Message");
    this.context = h("p", { id: "composer-context" });
    this.typing = h("p", { id: "typing", "aria-live": "polite" });
    /** @param {SubmitEvent} event */
    const onsubmit = (event) => {
      event.preventDefault();
      void shown(() => this.#send());
    };
    this.element = h("form", { class: "composer", onsubmit }, this.typing, this.context,
      h("div", { class: "row" }, this.label, this.text, h("button", { class: "primary", id: "send" }, "Send")));
  }

  draw() {
    const { chat } = this;
    if (chat.channelId !== this.#channelId) {
      this.#channelId = chat.channelId;
      this.#replyTo = this.#editing = null;
    }
    this.element.hidden = chat.channel === undefined;
    this.text.placeholder = `Message #${chat.channel?.name ?? ""}`;
    const of = this.#editing ?? this.#replyTo;
    if (of === null) this.context.replaceChildren();
    else {
      const what = this.#editing !== null ? "Editing: " : `Reply to ${chat.nameOf(of.author)}: `;
      redraw(this.context, h("span", {}, what, chat.shownText(of.content)), h("button", { type: "button", class: "quiet", "aria-label": "Cancel", onclick: () => this.cancel() }, "✕"));
    }
    const names = [...chat.typing].map(([id, { preview }]) => `${chat.nameOf({ id })} is typing${preview ? `: ${preview}` : "…"}`);
    const text = names.length > 3 ? "Several people are typing…" : names.join(" · ");
    if (this.typing.textContent !== text) this.typing.textContent = text;
  }

  /** @param {Message} message */
  reply(message) {
    this.cancel();
    this.#replyTo = message;
    this.draw();
    this.text.focus();
  }

  /** @param {Message} message */
  edit(message) {
    this.cancel();
    this.#editing = message;
    this.text.value = this.chat.shownText(message.content);
    this.draw();
    this.text.focus();
    this.#grow();
  }

  /** Leave the reply or the edit. */
  cancel() {
    if (this.#editing !== null) this.text.value = "";
    this.#replyTo = this.#editing = null;
    this.draw();
    this.#grow();
  }

  async #send() {
    const { chat, text } = this;
    const written = text.value.trim();
    const content = chat.storedText(written);
    const { channelId } = chat;
    if (content === "" || channelId === "") return;
    const [replyTo, editing] = [this.#replyTo, this.#editing];
    this.#replyTo = this.#editing = null;
    text.value = "";
    this.#toldAt = 0;
    this.draw();
    this.#grow();
    try {
      if (editing !== null) await chat.client.edit(channelId, editing.event_id, content);
      else {
        if (!chat.isNewest) void shown(() => chat.open(channelId));
        await chat.post(content, replyTo?.event_id);
      }
    } catch (failure) {
      if (text.value === "") text.value = written; // nothing that was written is lost
      [this.#replyTo, this.#editing] = [replyTo, editing];
      this.draw();
      throw failure;
    }
  }

  /** @param {KeyboardEvent} event */
  #keydown(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
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
    if (this.#editing !== null || this.text.value.trim() === "" || Date.now() - this.#toldAt < TYPING_EVERY_MS) return;
    this.#toldAt = Date.now();
    const { channelId, client } = this.chat;
    client.typing(channelId).catch((failure) => console.debug("typing was not told:", failure)); // it may be missed
  }

  #grow() {
    this.text.rows = Math.min(8, this.text.value.split("\n").length);
  }
}
