/** Helpers for DOM elements. Texts of users are only ever set as text, never as markup. */

import { ApiError, OutcomeUnknown } from "../openguild.js";

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * Return a new element. `props` are attributes, boolean attributes, and `on<event>` listeners.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} [props]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") Object.assign(element, { [name]: value }); // so that a redraw replaces the listener
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/**
 * Return the element with an id. Throws Error if there is none.
 * @param {string} id
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`no element ${id}`);
  return element;
}

/** @param {unknown} failure */
export function failureText(failure) {
  if (failure instanceof ApiError) return [failure.text, ...failure.details.map(({ field, message }) => `${field} ${message}`.trim())].join(": ");
  if (failure instanceof OutcomeUnknown) return `the server has not answered (${failure.message})`;
  return failure instanceof Error ? failure.message : String(failure);
}

/** Show a problem until another one replaces it, or for 30 seconds. @param {unknown} failure */
export function showProblem(failure) {
  showNotice(failureText(failure));
}

/** @param {string} text */
export function showNotice(text) {
  const alert = h("p", {}, text, h("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => alert.remove() }, "✕"));
  byId("alerts").replaceChildren(alert);
  setTimeout(() => alert.remove(), 30_000);
}

let views = 0;

/** Replace the whole view. Failures of work that began in the earlier view are not shown any more. @param {Node} view */
export function showView(view) {
  views += 1;
  byId("alerts").replaceChildren();
  byId("view").replaceChildren(view);
}

/**
 * Run work that may fail, and show its failure. Return undefined after a failure.
 * @template T
 * @param {() => Promise<T>} work
 * @returns {Promise<T | undefined>}
 */
export async function shown(work) {
  const view = views;
  try {
    return await work();
  } catch (failure) {
    if (view === views) showProblem(failure);
    return undefined;
  }
}

/** Announce a text to screen readers; null: remove the earlier announcements. @param {string | null} text */
export function announce(text) {
  const announcer = byId("announcer");
  if (text === null) announcer.replaceChildren();
  else announcer.append(h("p", {}, text));
  while (announcer.childElementCount > 5) announcer.firstElementChild?.remove();
}

/** Remove a message, or the messages of a channel, from panels and dialogs. @param {string} id */
export function forget(id) {
  for (const line of document.querySelectorAll("[data-event]")) {
    if (line instanceof HTMLElement && [line.dataset["event"], line.dataset["channel"]].includes(id)) line.remove();
  }
}

/** @typedef {{name: string, label: string, value?: string, required?: boolean, minlength?: number, maxlength?: number, secret?: "current-password" | "new-password", options?: string[]}} Field
 * `secret`: a password field with this `autocomplete`. `options`: the values to choose from. */

/**
 * Ask for texts in a dialog. Return the trimmed texts by field name; null if the user cancelled.
 * @param {{title: string, text?: string, fields?: Field[], submit: string, extra?: Child}} question
 * @returns {Promise<Record<string, string> | null>}
 */
export function ask({ title, text, fields = [], submit, extra }) {
  return new Promise((resolve) => {
    const inputs = fields.map(({ name, label, value = "", required = false, minlength, maxlength = 1_000, secret, options }) => {
      const id = `ask-${name}`;
      const input = options === undefined
        ? h("input", { name, required, minlength: minlength ?? null, maxlength, autocomplete: secret ?? "off", type: secret ? "password" : "text", id })
        : h("select", { name, id }, ...options.map((option) => h("option", {}, option)));
      input.value = value;
      return h("p", {}, h("label", { for: `ask-${name}` }, label), input);
    });
    const cancel = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
    /** @param {SubmitEvent} event */
    const onsubmit = (event) => {
      event.preventDefault();
      resolve(Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, String(value).trim()])));
      dialog.close();
    };
    const form = h("form", { onsubmit }, h("h2", { id: "ask-title" }, title), text && h("p", {}, text), ...inputs, extra,
      h("p", { class: "buttons" }, cancel, h("button", { class: "primary" }, submit)));
    const dialog = showDialog(form, () => resolve(null));
  });
}

/**
 * Let the user choose an action. Return its name; null if they cancelled.
 * @template {string} T
 * @param {string} title
 * @param {{[name in T]?: string}} choices name -> label of the button
 * @returns {Promise<T | null>}
 */
export function choose(title, choices) {
  return new Promise((resolve) => {
    const names = /** @type {T[]} */ (Object.keys(choices));
    const buttons = names.map((name) => h("button", { type: "button", onclick: () => (resolve(name), dialog.close()) }, choices[name]));
    const cancel = h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Cancel");
    const dialog = showDialog(h("div", { class: "menu" }, h("h2", { id: "ask-title" }, title), ...buttons, cancel), () => resolve(null));
  });
}

/** Show a modal dialog; `content` has a heading with the id `ask-title`. @param {Node} content @param {() => void} closed */
function showDialog(content, closed) {
  const dialog = h("dialog", { "aria-labelledby": "ask-title", onclose: () => (closed(), dialog.remove()) }, content);
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Return an element that shows the time of day, or the date if it was not today. @param {string} timestamp */
export function timeElement(timestamp) {
  return h("time", { datetime: timestamp, title: new Date(timestamp).toLocaleString() }, shownTime(timestamp));
}

/** Redraw all times: another day has begun. */
export function redrawTimes() {
  for (const element of document.querySelectorAll("time")) element.textContent = shownTime(element.dateTime);
}

/** @param {string} timestamp */
function shownTime(timestamp) {
  const when = new Date(timestamp);
  if (when.toDateString() === new Date().toDateString()) return when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return when.toLocaleDateString([], { dateStyle: "medium" });
}
