// A table whose rows are kept: on a phone each row becomes a small card, with its columns' names beside the values.

import { Parts, el, mark, say } from "./dom.js";

// A column: {label, text(row)} or {label, draw(cell, row)}; `number`: aligned to the right; `look(row)`: its class.
export function table(caption, columns) {
  const body = el("tbody", { role: "rowgroup" });
  const heads = columns.map((column) =>
    el("th", { scope: "col", role: "columnheader", class: column.number ? "number" : null, title: column.title }, column.label),
  );
  const element = el(
    "table",
    { role: "table" },
    el("caption", { class: "unseen" }, caption),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...heads)),
    body,
  );
  const rows = new Parts(body, () => row(columns));
  return { element, update: (things) => rows.update(things) };
}

function row(columns) {
  const cells = columns.map((column, at) =>
    el(at ? "td" : "th", { role: at ? "cell" : "rowheader", scope: at ? null : "row", "data-label": column.label }),
  );
  const element = el("tr", { role: "row" }, ...cells);
  return {
    element,
    update(thing) {
      mark(element, thing.look ?? "");
      columns.forEach((column, at) => {
        const cell = cells[at];
        mark(cell, [column.number ? "number" : "", column.class ?? "", column.look?.(thing) ?? ""].join(" ").trim());
        if (column.draw) column.draw(cell, thing);
        else say(cell, column.text(thing));
      });
    },
  };
}

// A state in words, with a dot whose colour says the same.
export function state(cell, name) {
  if (!cell.firstChild) cell.append(el("span", { class: "state" }));
  const shown = cell.firstChild;
  say(shown, name.replaceAll("_", " "));
  mark(shown, `state ${COLOURS[name] ?? "plain"}`);
}

const GOOD = ["ok", "up", "active", "succeeded", "live", "rotated"];
const BAD = ["unhealthy", "failing", "ejected", "failed", "rolling_back", "aborted", "revoked", "quarantined", "expired"];
const MIDDLING = ["cooling", "resting", "leaving", "holding", "paused", "inconclusive", "validating", "overlapping"];
const UNDER_WAY = ["warming", "progressing", "promoting", "baking"];
const COLOURS = Object.fromEntries([
  ...GOOD.map((name) => [name, "good"]),
  ...BAD.map((name) => [name, "bad"]),
  ...MIDDLING.map((name) => [name, "middling"]),
  ...UNDER_WAY.map((name) => [name, "underway"]),
]);
