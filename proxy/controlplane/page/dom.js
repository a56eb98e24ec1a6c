// Elements, made and kept up to date. Text goes in as text, never as markup: names and messages are other people's.

const SVG = "http://www.w3.org/2000/svg";

export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

// Only where it differs: what stays the same keeps its selection, and is not read out again.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function mark(element, className) {
  if (element.getAttribute("class") !== className) element.setAttribute("class", className);
}

export const find = (id) => document.getElementById(id);

// A part of the page for each of `things`, in their order: made when it is new, updated, taken away when it is gone.
export class Parts {
  #parts = new Map();

  constructor(parent, make) {
    this.parent = parent;
    this.make = make;
  }

  update(things) {
    const before = this.#parts;
    this.#parts = new Map();
    let previous = null;
    for (const [key, thing] of things) {
      const part = before.get(key) ?? this.make(key);
      before.delete(key);
      this.#parts.set(key, part);
      part.update(thing);
      const place = previous ? previous.nextSibling : this.parent.firstChild;
      if (place !== part.element) this.parent.insertBefore(part.element, place);
      previous = part.element;
    }
    for (const part of before.values()) part.element.remove();
  }
}
