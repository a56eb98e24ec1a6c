// Each canary: where its rollout is, both arms, what decides, and how it came to that.

import { json } from "./api.js";
import { Parts, el, find, mark, say } from "./dom.js";
import { DASH, evidence, failed, lasted, ms, percent, rate, words } from "./format.js";
import { Plot } from "./plot.js";
import { state, table } from "./table.js";

const MOST_POINTS = 600;
const DECISIONS = ["promoted", "rolled_back", "aborted"];
const DECIDED = ["failed", "aborted", "succeeded", "rolling_back", "promoting", "baking"];
const OVER = ["failed", "aborted", "succeeded"]; // nothing is looked at any more

const shown = new Map(); // the last of each, by name
let canaries = null;
let pools = {};

export function begin() {
  const list = el("div", { class: "stack" });
  canaries = new Parts(list, (name) => new Card(name));
  find("canaries").append(list);
}

// Which there are, and the rates of their pools.
export function update(status) {
  pools = status.pools;
  for (const name of shown.keys()) if (!(name in status.canaries)) shown.delete(name);
  draw();
}

export function canary(one) {
  shown.set(one.name, one);
  draw();
}

function draw() {
  find("canaries").hidden = !shown.size;
  canaries.update(shown);
}

class Card {
  #before = ""; // what the history was asked for
  #last = null;
  #marks = [];
  #points = [];

  constructor(name) {
    this.name = name;
    this.plot = new Plot();
    this.parts = {};
    for (const part of ["standing", "about", "steps", "decision", "meters", "waits", "log", "commands"]) {
      this.parts[part] = el(part === "steps" || part === "log" ? "ol" : part === "commands" ? "p" : "div", { class: part });
    }
    this.parts.steps.setAttribute("aria-label", "Steps");
    this.parts.decision.setAttribute("role", "status");
    this.meters = new Parts(this.parts.meters, () => meter());
    this.steps = new Parts(this.parts.steps, () => line());
    this.log = new Parts(this.parts.log, () => happened());
    this.arms = table(`Both arms of ${name}`, ARMS);
    const { standing, about, steps, decision, meters, waits, log, commands } = this.parts;
    this.element = el(
      "article",
      { class: "card canary", "aria-label": `Canary ${name}` },
      el("div", { class: "head" }, el("h3", {}, name), standing, about),
      decision,
      el("div", { class: "halves" }, el("div", {}, steps, this.arms.element, meters, waits, log, commands), this.plot.element),
    );
  }

  update(one) {
    state(this.parts.standing, one.state);
    say(this.parts.about, `${one.canary_pool} beside ${one.baseline_pool} · ${percent(one.weight)} of the requests${one.mode === "canary" ? "" : ` · ${one.mode}`}`);
    this.steps.update(one.steps.map((step, at) => [at, stepOf(step, at, one)]));
    const counts = one.analysis;
    this.arms.update(["baseline", "canary"].map((arm) => [arm, armOf(arm, one, counts)]));
    this.meters.update(metersOf(one));
    const decided = one.events.findLast((event) => DECISIONS.includes(event.name));
    const over = decided && DECIDED.includes(one.state);
    this.parts.decision.hidden = !over;
    say(this.parts.decision, over ? decision(decided, one) : "");
    mark(this.parts.decision, `decision ${decided?.name === "promoted" ? "good" : "bad"}`);
    say(this.parts.waits, one.waits_for.length ? `Waits for: ${one.waits_for.join("; ")}` : "");
    const first = one.events[0]?.ago_s ?? 0;
    this.log.update(one.events.slice(-8).map((event) => [`${event.name} ${event.text}`, { ...event, after: first - event.ago_s }]));
    say(this.parts.commands, one.commands.length ? `By hand: serinus canary ${one.commands.join(" | ")} ${this.name}` : "");
    if (one !== this.#last) this.#remember(one);
    this.#last = one;
  }

  // The past is asked for when the page opens, and again when something happened: what decided is in it.
  #remember(one) {
    if (!OVER.includes(one.state)) this.#points.push(point(one, Date.now()));
    if (this.#points.length > MOST_POINTS) this.#points = this.#points.filter((_, at) => at % 2 === 0);
    const version = [one.id, one.state, one.step, one.events.length, one.events.at(-1)?.name].join(" ");
    if (version !== this.#before) {
      const anew = !this.#before.startsWith(`${one.id} `);
      this.#before = version;
      this.#fetch(anew);
    }
    this.plot.update(this.#points, this.#marks, one.analysis.proof_wanted);
  }

  async #fetch(anew) {
    try {
      const one = await json(`/canaries/${encodeURIComponent(this.name)}`);
      const now = Date.now();
      const past = one.history.map(({ ago_s, ...rest }) => ({ t: now - 1000 * ago_s, ...rest }));
      const [begins, ends] = [past[0]?.t ?? Infinity, past.at(-1)?.t ?? 0];
      const before = anew ? [] : this.#points.filter((each) => each.t < begins - 1000);
      const after = OVER.includes(one.state) && past.length ? [] : this.#points.filter((each) => each.t > ends);
      this.#points = [...before, ...past, ...after];
      this.#marks = one.events.map((event) => ({ t: now - 1000 * event.ago_s, name: event.name }));
      this.plot.update(this.#points, this.#marks, one.analysis.proof_wanted);
    } catch {
      // It is asked for again when the next thing happens; until then there is what was seen from here.
      this.#before = "";
    }
  }
}

// `Rolled back after 1 min 24 s: E=468.6 ≥ 400 after 118 canary requests`.
function decision(event, one) {
  const what = words(event.name);
  const why = event.text.slice(event.text.indexOf(": ") + 2);
  return `${what[0].toUpperCase()}${what.slice(1)} after ${lasted(one.events[0].ago_s - event.ago_s)}: ${why}`;
}

function point(one, t) {
  const { analysis } = one;
  return {
    t,
    weight: one.weight,
    evidence: analysis.evidence ?? null,
    threshold: analysis.threshold ?? null,
    proofs: analysis.proofs ?? {},
    baseline_ms: latencies(analysis, "baseline"),
    canary_ms: latencies(analysis, "canary"),
  };
}

function latencies(analysis, arm) {
  const inMs = (seconds) => (seconds == null ? null : 1000 * seconds);
  if (analysis.means) return [inMs(analysis.means[`${arm}_mean_s`]), null];
  return [inMs(quantile(analysis, arm, 0.5)), inMs(quantile(analysis, arm, 0.95))];
}

const quantile = (analysis, arm, share) => analysis[arm]?.ttft_s?.[analysis.quantiles.indexOf(share)];

// --- both arms ----------------------------------------------------------------------------------------------------

const ARMS = [
  { label: "arm", class: "name", text: (arm) => arm.arm },
  { label: "req/s", number: true, text: (arm) => (arm.rate == null ? DASH : rate(arm.rate)) },
  ...[0.5, 0.9, 0.99].map((share) => ({
    label: `p${100 * share}`,
    title: "first byte, ms",
    number: true,
    text: (arm) => ms(arm.quantile(share)),
  })),
  { label: "requests", title: "at this weight; when all was taken back, at the last one", number: true, text: (arm) => String(arm.started) },
  { label: "failed", number: true, text: (arm) => (arm.failed == null ? DASH : failed(100 * arm.failed)), look: (arm) => (arm.failed ? "bad" : "quiet") },
];

function armOf(arm, one, analysis) {
  return {
    arm,
    look: `arm-${arm}`,
    rate: pools[one[`${arm}_pool`]]?.traffic.requests_per_s,
    quantile: (share) => {
      const seconds = quantile(analysis, arm, share) ?? (share === 0.5 ? analysis.means?.[`${arm}_mean_s`] : null);
      return seconds == null ? null : 1000 * seconds;
    },
    started: one.arms[arm].started,
    failed: one.arms[arm].error_rate,
  };
}

// --- the steps ----------------------------------------------------------------------------------------------------

function stepOf(step, at, one) {
  const text = "weight" in step ? `${+step.weight.toFixed(2)} %` : "pause";
  const done = at < one.step || one.state === "succeeded";
  const here = at === one.step && one.weight > 0 && one.state !== "warming" && !OVER.includes(one.state);
  return { text, look: here ? "here" : done ? "done" : "", here };
}

function line() {
  const element = el("li");
  return {
    element,
    update(step) {
      say(element, step.text);
      mark(element, step.look);
      if (step.here) element.setAttribute("aria-current", "step");
      else element.removeAttribute("aria-current");
    },
  };
}

// --- what decides -------------------------------------------------------------------------------------------------

// When it is decided, what decided it.
function metersOf(one) {
  const numbers = [one.analysis, ...one.events.map((event) => event.numbers).reverse()].find((each) => "evidence" in each);
  if (!numbers) return [];
  const found = [["worse", { name: "worse?", value: numbers.evidence, of: numbers.threshold, look: "worse", what: "back at" }]];
  for (const [name, value] of Object.entries(numbers.proofs ?? {})) {
    found.push([name, { name: `no worse: ${words(name)}`, value, of: one.analysis.proof_wanted, look: "proof", what: "on at" }]);
  }
  return found;
}

// Evidence grows by factors: empty at 1, where every bet begins, full at what decides.
function meter() {
  const [name, value] = [el("span"), el("span", { class: "number" })];
  const bar = el("span", { class: "bar", role: "meter", "aria-valuemin": "0", "aria-valuemax": "100" }, el("span"));
  const element = el("div", { class: "meter" }, name, bar, value);
  return {
    element,
    update(one) {
      const share = one.value <= 1 || !one.of ? 0 : Math.min(1, Math.log(one.value) / Math.log(one.of));
      say(name, one.name);
      say(value, `${evidence(one.value)} · ${one.what} ${evidence(one.of)}`);
      mark(bar, `bar ${one.look}`);
      bar.setAttribute("aria-label", one.name);
      bar.setAttribute("aria-valuenow", Math.round(100 * share));
      bar.setAttribute("aria-valuetext", `${evidence(one.value)} of ${evidence(one.of)}`);
      bar.firstChild.style.inlineSize = `${100 * share}%`;
    },
  };
}

function happened() {
  const [time, text] = [el("time"), el("span")];
  const element = el("li", {}, time, text);
  return {
    element,
    update(event) {
      say(time, lasted(event.after));
      say(text, event.text);
      mark(element, event.name === "promoted" ? "good" : DECISIONS.includes(event.name) ? "bad" : "");
    },
  };
}
