// Rates of the last minutes, as lines the height of a word. What was there before the page was opened is not known.

import { el, svg } from "./dom.js";

const KEPT = 120; // one a second
const WIDTH = 84;
const HEIGHT = 20;

const series = new Map();

// Remember a rate by name. `null` is a gap: nobody answered.
export function note(name, value) {
  const values = series.get(name) ?? [];
  values.push(value);
  if (values.length > KEPT) values.shift();
  series.set(name, values);
}

export function gap() {
  for (const values of series.values()) if (values.at(-1) !== null) note_gap(values);
}

function note_gap(values) {
  values.push(null);
  if (values.length > KEPT) values.shift();
}

// Draw it into a cell, with the number beside it.
export function spark(cell, name, text) {
  if (!cell.firstChild) {
    const path = svg("path", { class: "spark-line" });
    const area = svg("path", { class: "spark-area" });
    const drawn = svg(
      "svg",
      { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      area,
      path,
    );
    cell.append(el("span", { class: "with-spark" }, drawn, el("span")));
  }
  const [drawn, shown] = cell.firstChild.children;
  if (shown.textContent !== text) shown.textContent = text;
  const [area, line] = paths(series.get(name) ?? []);
  drawn.children[0].setAttribute("d", area);
  drawn.children[1].setAttribute("d", line);
}

function paths(values) {
  const top = Math.max(1e-9, ...values);
  const x = (at) => (WIDTH - (WIDTH * (values.length - 1 - at)) / (KEPT - 1)).toFixed(1);
  const y = (value) => (HEIGHT - 1.5 - (HEIGHT - 3) * (value / top)).toFixed(1);
  let [area, line, began] = ["", "", null];
  values.forEach((value, at) => {
    if (value === null) {
      if (began !== null) area += `L${x(at - 1)} ${HEIGHT}L${x(began)} ${HEIGHT}Z`;
      began = null;
      return;
    }
    const point = `${x(at)} ${y(value)}`;
    line += (began === null ? "M" : "L") + point;
    area += (began === null ? "M" : "L") + point;
    began ??= at;
  });
  if (began !== null) area += `L${x(values.length - 1)} ${HEIGHT}L${x(began)} ${HEIGHT}Z`;
  return [area, line];
}
