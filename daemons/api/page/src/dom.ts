// Elements. Text from elsewhere gets into the page by `textContent` alone, so that it is never markup.

type Child = Node | string;
type Attributes = Record<string, string | number | boolean>;

const SVG = "http://www.w3.org/2000/svg";

function filled<E extends Element>(element: E, attributes: Attributes, children: Child[]): E {
  for (const [name, value] of Object.entries(attributes)) {
    setAttribute(element, name, value);
  }
  element.append(...children);
  return element;
}

export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  return filled(document.createElement(tag), attributes, children);
}

export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** Only what has changed is written: what has not keeps its place, focus and selection. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

export function setAttribute(element: Element, name: string, value: string | number | boolean): void {
  const text = value === true ? "" : String(value);
  if (value === false) {
    element.removeAttribute(name);
  } else if (element.getAttribute(name) !== text) {
    element.setAttribute(name, text);
  }
}

/** The element of this id in index.html. */
export function byId<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) {
    throw new Error(`index.html has no ${id}`);
  }
  return found;
}

/** What an element has as its only child, made once. */
export function once<E extends Element>(parent: Element, make: () => E): E {
  if (!parent.firstElementChild) {
    parent.replaceChildren(make());
  }
  return parent.firstElementChild as E;
}

/** Keeps one element for each key, in this order; those that stay are not touched. */
export function keyed<E extends Element>(parent: Element, keys: string[], make: (key: string) => E): E[] {
  const there = new Map(Array.from(parent.children, (child) => [child.getAttribute("data-key") ?? "", child as E]));
  const wanted = new Set(keys);
  for (const [key, child] of there) {
    if (!wanted.has(key)) {
      child.remove();
    }
  }
  return keys.map((key, at) => {
    let child = there.get(key);
    if (!child) {
      child = make(key);
      child.setAttribute("data-key", key);
    }
    if (parent.children[at] !== child) {
      parent.insertBefore(child, parent.children[at] ?? null);
    }
    return child;
  });
}
