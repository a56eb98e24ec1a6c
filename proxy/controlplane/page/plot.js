// A rollout over time: is it worse, is it no worse, how much goes to it, what both arms wait for; above one clock.

import { el, say, svg } from "./dom.js";
import { clock, evidence, withUnit } from "./format.js";
import { linear, logarithmic, moments, path, powers, round } from "./scale.js";

const LEFT = 46;
const RIGHT = 12;
const TITLE = 38; // above each, for its name
const NARROW = 520; // there a panel's name is short, for beside it stand those of its lines
const LOW = 0.1; // evidence below it says nothing more

export class Plot {
  constructor() {
    this.svg = svg("svg", { class: "plot", role: "img", tabindex: "0" });
    this.readout = el("p", { class: "readout quiet", "aria-live": "polite" });
    this.element = el("figure", {}, this.svg, this.readout);
    this.points = [];
    this.at = null;
    this.svg.addEventListener("pointermove", (event) => this.#point(event.offsetX));
    this.svg.addEventListener("pointerleave", () => this.#inspect(null));
    this.svg.addEventListener("blur", () => this.#inspect(null));
    this.svg.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#draw()).observe(this.element);
  }

  // `points`: {t, weight, evidence, threshold, proofs, baseline_ms, canary_ms}, t in milliseconds; `marks`: {t, name}.
  update(points, marks, wanted) {
    Object.assign(this, { points, marks, wanted });
    this.element.hidden = !points.length;
    this.#draw();
  }

  #draw() {
    const width = this.element.clientWidth;
    if (!width || !this.points.length) return;
    const from = this.points[0].t;
    const to = Math.max(from + 5000, this.points.at(-1).t, ...this.marks.map((each) => each.t));
    this.x = linear(from, to, LEFT, width - RIGHT);
    const shown = [];
    let top = 0;
    for (const panel of this.#panels()) {
      shown.push(...this.#panel(panel, top, width));
      top += TITLE + panel.height;
    }
    this.bottom = top;
    shown.push(...this.#clock(from, to, width), ...this.#marks());
    this.cross = svg("line", { class: "cross", y1: 0, y2: top, visibility: "hidden" });
    this.svg.setAttribute("viewBox", `0 0 ${width} ${top + 20}`);
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("height", top + 20);
    this.svg.setAttribute("aria-label", this.#summary());
    this.svg.replaceChildren(...shown, this.cross);
    this.#inspect(this.at);
  }

  #panels() {
    const of = (name) => this.points.map((point) => point[name]);
    const found = [];
    if (of("evidence").some((value) => value !== null)) found.push(worse(this.points));
    const metrics = [...new Set(this.points.flatMap((point) => Object.keys(point.proofs)))];
    if (metrics.length && this.wanted) found.push(noWorse(this.points, metrics, this.wanted));
    found.push(weight(this.points));
    if (of("baseline_ms").some(([p50]) => p50 !== null)) found.push(firstByte(this.points));
    return found;
  }

  #panel(panel, top, width) {
    const [upper, lower] = [top + TITLE, top + TITLE + panel.height];
    const y = panel.scale(lower, upper);
    const drawn = [svg("text", { class: "title", x: 0, y: top + 24 }, width < NARROW ? panel.short : panel.title), ...legend(panel, top, width)];
    for (const value of panel.ticks.filter((each) => each !== LOW)) {
      drawn.push(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
      drawn.push(svg("text", { class: "tick", x: LEFT - 6, y: y(value) + 3.5, "text-anchor": "end" }, panel.label(value)));
    }
    for (const line of panel.lines) {
      const places = this.points.map((point) => [this.x(point.t), onAxis(line.of(point), y)]);
      const corners = path(places, line.stepped);
      if (line.filled && corners) {
        const [first, last] = [places.find(([, at]) => at !== null)[0], places.findLast(([, at]) => at !== null)[0]];
        drawn.push(svg("path", { class: `area ${line.look}`, d: `${corners}L${last} ${lower}L${first} ${lower}Z` }));
      }
      drawn.push(svg("path", { class: `line ${line.look}`, d: corners }));
    }
    return drawn;
  }

  #clock(from, to, width) {
    return moments(from, to, Math.max(2, Math.floor(width / 90))).map((at) =>
      svg("text", { class: "tick", x: Math.min(this.x(at), width - 26), y: this.bottom + 16, "text-anchor": "middle" }, clock(at)),
    );
  }

  #marks() {
    return this.marks
      .filter((each) => each.t >= this.points[0].t - 1000)
      .map((each) => {
        const x = Math.max(LEFT, this.x(each.t));
        const line = svg("line", { class: `mark ${each.name}`, x1: x, x2: x, y1: TITLE, y2: this.bottom });
        line.append(svg("title", {}, each.name.replaceAll("_", " ")));
        return line;
      });
  }

  #summary() {
    const last = this.points.findLast((point) => point.evidence !== null) ?? this.points.at(-1);
    const worse = last.evidence === null ? "" : `Evidence that it is worse: ${evidence(last.evidence)} of ${evidence(last.threshold)}. `;
    return `${worse}${this.points.at(-1).weight} % of the requests. Arrow keys read the values.`;
  }

  // --- reading values off it --------------------------------------------------------------------------------------

  #point(x) {
    if (!this.x) return;
    const distances = this.points.map((point) => Math.abs(this.x(point.t) - x));
    this.#inspect(distances.indexOf(Math.min(...distances)));
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
    if (!step || !this.points.length) return;
    event.preventDefault();
    const last = this.points.length - 1;
    this.#inspect(Math.min(last, Math.max(0, (this.at ?? last) + step)));
  }

  #inspect(at) {
    const point = at === null ? null : this.points[at];
    this.at = point ? at : null;
    if (!point) {
      this.cross?.setAttribute("visibility", "hidden");
      say(this.readout, "\u00a0");
      return;
    }
    const x = this.x(point.t);
    for (const name of ["x1", "x2"]) this.cross.setAttribute(name, x);
    this.cross.setAttribute("visibility", "visible");
    say(this.readout, described(point, this.wanted));
  }
}

const onAxis = (value, y) => (value == null ? null : y(value));

function legend(panel, top, width) {
  const drawn = [];
  let x = width - RIGHT;
  for (const line of panel.lines.filter((each) => each.name).reverse()) {
    drawn.push(svg("text", { class: `legend ${line.look}`, x, y: top + 24, "text-anchor": "end" }, line.name));
    x -= 7 * line.name.length + 14;
  }
  return drawn;
}

// Of powers of ten, all in one way where they are long: `1`, `100`, `1e4`, `1e19`.
function power(value) {
  return value >= 1000 ? `1e${Math.round(Math.log10(value))}` : evidence(value);
}

function worse(points) {
  const highest = Math.max(...points.map((point) => Math.max(point.evidence ?? 0, point.threshold ?? 0)));
  const threshold = points.findLast((point) => point.threshold !== null)?.threshold;
  return {
    title: "Evidence that it is worse",
    short: "Worse?",
    height: 118,
    scale: (lower, upper) => logarithmic(LOW, highest * 1.6, lower, upper),
    ticks: powers(LOW, highest * 1.6),
    label: power,
    lines: [
      { name: "evidence", look: "worse", of: (point) => point.evidence, filled: true },
      { name: `back at ${evidence(threshold)}`, look: "threshold", of: (point) => point.threshold, stepped: true },
    ],
  };
}

function noWorse(points, metrics, wanted) {
  const highest = Math.max(wanted, ...points.flatMap((point) => Object.values(point.proofs)));
  return {
    title: "Proof that it is no worse",
    short: "No worse?",
    height: 84,
    scale: (lower, upper) => logarithmic(LOW, highest * 1.6, lower, upper),
    ticks: powers(LOW, highest * 1.6),
    label: power,
    lines: [
      ...metrics.map((name, at) => ({ name, look: `proof proof-${at % 3}`, of: (point) => point.proofs[name] ?? null })),
      { name: `on at ${evidence(wanted)}`, look: "threshold", of: (point) => (Object.keys(point.proofs).length ? wanted : null) },
    ],
  };
}

function weight(points) {
  const highest = round(Math.max(10, ...points.map((point) => point.weight)));
  return {
    title: "Share of the requests, %",
    short: "Share, %",
    height: 46,
    scale: (lower, upper) => linear(0, highest, lower, upper),
    ticks: [0, highest],
    label: String,
    lines: [{ look: "canary", of: (point) => point.weight, stepped: true, filled: true }],
  };
}

function firstByte(points) {
  const values = points.flatMap((point) => [...point.baseline_ms, ...point.canary_ms]).filter((value) => value !== null);
  const highest = round(Math.max(...values));
  return {
    title: "First byte, ms: p50, p95",
    short: "First byte, ms",
    height: 92,
    scale: (lower, upper) => linear(0, highest, lower, upper),
    ticks: [0, highest / 2, highest],
    label: (value) => String(Math.round(value)),
    lines: [
      { name: "baseline", look: "baseline", of: (point) => point.baseline_ms[0] },
      { look: "baseline tail", of: (point) => point.baseline_ms[1] },
      { name: "canary", look: "canary", of: (point) => point.canary_ms[0] },
      { look: "canary tail", of: (point) => point.canary_ms[1] },
    ],
  };
}

function described(point, wanted) {
  const said = [`${clock(point.t)}: ${point.weight} %`];
  if (point.evidence !== null) said.push(`evidence ${evidence(point.evidence)} of ${evidence(point.threshold)}`);
  for (const [name, proof] of Object.entries(point.proofs)) said.push(`${name} ${evidence(proof)} of ${evidence(wanted)}`);
  for (const arm of ["baseline", "canary"]) {
    const [p50, p95] = point[`${arm}_ms`];
    if (p50 !== null) said.push(`${arm} ${withUnit(p50)}${p95 === null ? "" : `, ${withUnit(p95)}`}`);
  }
  return said.join(" · ");
}
