/**
 * Draw again in place. What is shown already stays where it can: with the focus, a selection, and a press of the mouse
 * that began on it. An element that is replaced between the press and the release hears no click.
 */

/** @typedef {import("./dom.js").Child} Child */

/**
 * Show `children` in `parent`. Each takes the place of a former child with its tag and `data-key`, if there is one; without a key, of the next.
 * @param {Element} parent
 * @param {...Child} children
 */
export function redraw(parent, ...children) {
  const former = [...parent.childNodes];
  /** @param {Node} node */
  const key = (node) => (node instanceof HTMLElement ? (node.dataset["key"] ?? "") : "");
  place(parent, children.filter((child) => child !== null && child !== undefined && child !== false).map((child) => {
    const wanted = typeof child === "string" ? document.createTextNode(child) : child;
    const found = former.findIndex((node) => node.nodeName === wanted.nodeName && key(node) === key(wanted));
    return found < 0 ? wanted : like(/** @type {ChildNode} */ (former.splice(found, 1)[0]), wanted);
  }));
}

/**
 * Let `nodes` be all children of `parent`. Those that are children already are moved only where their order has changed.
 * @param {Element} parent
 * @param {Node[]} nodes
 */
export function place(parent, nodes) {
  const focused = document.activeElement;
  const kept = new Set(nodes);
  for (const node of [...parent.childNodes]) if (!kept.has(node)) node.remove();
  nodes.forEach((node, index) => {
    const here = parent.childNodes[index] ?? null;
    if (here !== node) parent.insertBefore(node, here);
  });
  if (focused instanceof HTMLElement && focused !== document.activeElement && parent.contains(focused)) focused.focus(); // it was moved
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

/**
 * The same for one element. Return the one that is shown.
 * @param {HTMLElement | undefined} former
 * @param {HTMLElement} wanted
 */
export function redrawn(former, wanted) {
  return former === undefined ? wanted : /** @type {HTMLElement} */ (like(former, wanted));
}
