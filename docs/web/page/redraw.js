/**
 * Redraws in place: existing elements stay where possible, with their focus, selection and mouse presses. An element that is
 * replaced or moved between mousedown and mouseup gets no click.
 */

/** @typedef {import("./dom.js").Child} Child */

/** @param {Node} node */
const key = (node) => (node instanceof HTMLElement ? (node.dataset["key"] ?? "") : "");

/**
 * Show `children` in `parent`. Each updates the first earlier child with the same tag and `data-key` (or without a key), if there
 * is one.
 * @param {Element} parent
 * @param {...Child} children
 */
export function redraw(parent, ...children) {
  const former = [...parent.childNodes];
  place(parent, children.filter((child) => child !== null && child !== undefined && child !== false).map((child) => {
    const wanted = typeof child === "string" ? document.createTextNode(child) : child;
    const found = former.findIndex((node) => node.nodeName === wanted.nodeName && key(node) === key(wanted));
    return found < 0 ? wanted : like(/** @type {ChildNode} */ (former.splice(found, 1)[0]), wanted);
  }));
}

/**
 * Make `nodes` the only children of `parent`. Existing children are moved only if their order has changed; if one node and many
 * swap places, the one is moved.
 * @param {Element} parent
 * @param {Node[]} nodes
 */
export function place(parent, nodes) {
  const focused = document.activeElement;
  const kept = new Set(nodes);
  for (const node of [...parent.childNodes]) if (!kept.has(node)) node.remove();
  let here = parent.firstChild;
  for (const node of nodes) {
    if (here !== null && here !== node && here.nextSibling === node) {
      here.remove(); // it is inserted again later
      here = /** @type {ChildNode} */ (node);
    }
    if (here === node) here = here.nextSibling;
    else parent.insertBefore(node, here);
  }
  if (focused instanceof HTMLElement && focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true }); // lost by the move
}

/**
 * Give `former` the attributes, content and click listener of `wanted`, and return it.
 * @param {Node} former
 * @param {Node} wanted a node of the same tag; not used afterwards
 */
function like(former, wanted) {
  if (former === wanted) return former;
  if (former instanceof HTMLElement && wanted instanceof HTMLElement) {
    for (const { name } of [...former.attributes]) if (!wanted.hasAttribute(name)) former.removeAttribute(name);
    for (const { name, value } of wanted.attributes) if (former.getAttribute(name) !== value) former.setAttribute(name, value);
    former.onclick = wanted.onclick; // redrawn elements have no other listeners
    redraw(former, ...wanted.childNodes);
  } else if (former.nodeValue !== wanted.nodeValue) former.nodeValue = wanted.nodeValue;
  return former;
}

/** A child of a long list: `make` is called again only if `state`, everything that it shows, has changed.
 * @typedef {{key: string, state: readonly unknown[], make: () => HTMLElement}} Row */

/** The children of a long list that is drawn often. */
export class Rows {
  /** @type {Map<string, {state: readonly unknown[], element: HTMLElement}>} */
  #drawn = new Map();

  /** @param {Element} parent */
  constructor(parent) {
    this.parent = parent;
  }

  /** Return the element with a key, if it is drawn. @param {string} key */
  get(key) {
    return this.#drawn.get(key)?.element;
  }

  /** Make all elements again at the next `draw`. */
  forget() {
    this.#drawn.clear();
  }

  /** @param {Row[]} rows */
  draw(rows) {
    const drawn = this.#drawn;
    this.#drawn = new Map(rows.map(({ key, state, make }) => {
      const former = drawn.get(key);
      if (former?.state.every((part, index) => part === state[index])) return [key, former];
      const element = make();
      return [key, { state, element: former === undefined ? element : /** @type {HTMLElement} */ (like(former.element, element)) }];
    }));
    place(this.parent, [...this.#drawn.values()].map(({ element }) => element));
  }
}
