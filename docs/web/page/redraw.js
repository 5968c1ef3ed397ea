/**
 * Draw again in place. What is shown already stays where it can: with the focus, a selection, and a press of the mouse
 * that began on it. An element that is replaced or moved between the press and the release hears no click.
 */

/** @typedef {import("./dom.js").Child} Child */

/** @param {Node} node */
const key = (node) => (node instanceof HTMLElement ? (node.dataset["key"] ?? "") : "");

/**
 * Show `children` in `parent`. Each takes the place of a former child with its tag and `data-key`, if there is one; without a key, of the next.
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
 * Let `nodes` be all children of `parent`. Those that are children already are moved only where their order has changed: of many and one
 * that change places, the one.
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
      here.remove(); // its place is further on
      here = /** @type {ChildNode} */ (node);
    }
    if (here === node) here = here.nextSibling;
    else parent.insertBefore(node, here);
  }
  if (focused instanceof HTMLElement && focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true }); // it was moved
}

/**
 * Make `former` show and do what `wanted` does. Return it.
 * @param {Node} former
 * @param {Node} wanted of the same tag; it is not used any more
 */
function like(former, wanted) {
  if (former === wanted) return former;
  if (former instanceof HTMLElement && wanted instanceof HTMLElement) {
    for (const { name } of [...former.attributes]) if (!wanted.hasAttribute(name)) former.removeAttribute(name);
    for (const { name, value } of wanted.attributes) if (former.getAttribute(name) !== value) former.setAttribute(name, value);
    former.onclick = wanted.onclick; // no other listener is on what is drawn again
    redraw(former, ...wanted.childNodes);
  } else if (former.nodeValue !== wanted.nodeValue) former.nodeValue = wanted.nodeValue;
  return former;
}

/** A child of a long list: `make` is called again only where `state`, all that it shows, has changed.
 * @typedef {{key: string, state: readonly unknown[], make: () => HTMLElement}} Row */

/** The children of a list that is long and drawn often. */
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

  /** Make all anew when they are drawn next. */
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
