// What was decided, the newest first; and the configuration: its reloads, its certificates.

import { Parts, el, find, mark, say } from "./dom.js";
import { clock, lasted, words } from "./format.js";

const KEPT = 50;
const decided = new Map();
const none = el("p", { class: "quiet" }, "Nothing was decided since the start.");
let decisions = null;
let certificates = null;
const reload = el("p");
const problems = el("ul", { class: "plain" });

export function begin() {
  const list = el("ol", { class: "log", tabindex: "0", "aria-label": "Decisions, the newest first" });
  decisions = new Parts(list, () => entry());
  find("decisions").append(el("div", { class: "card" }, none, list));
  const shown = el("ul", { class: "plain" });
  certificates = new Parts(shown, () => certificate());
  find("configuration").append(el("div", { class: "card" }, reload, problems, shown));
}

// Numbers count from the start of a process: its moment tells a decision from one of the process before.
export function decision(one) {
  decided.set(`${one.timestamp} ${one.number}`, one);
  if (decided.size > KEPT) decided.delete(decided.keys().next().value);
  none.hidden = true;
  decisions.update([...decided].reverse());
}

function entry() {
  const [time, text, who] = [el("time"), el("span"), el("span", { class: "quiet" })];
  const element = el("li", {}, time, text, who);
  return {
    element,
    update(one) {
      say(time, clock(Date.parse(one.timestamp)));
      time.setAttribute("datetime", one.timestamp);
      say(text, one.data.canary ? `${one.data.canary} ${one.data.text}` : `${words(one.type)} ${one.data.text ?? ""}`);
      say(who, one.who === "serinus" ? "" : ` by ${one.who}`);
      const name = one.type.split(".").at(-1);
      mark(element, ["rolled_back", "aborted"].includes(name) ? "bad" : name === "promoted" ? "good" : "");
    },
  };
}

export function update(status) {
  const last = status.last_reload;
  const generation = `Configuration ${status.generation} is in force`;
  if (!last) say(reload, `${generation}. It was not reloaded since the start, ${lasted(status.uptime_s)} ago.`);
  else say(reload, last.result === "applied" ? `${generation}. The last reload was applied.` : `${generation}. The last reload was rejected:`);
  mark(reload, last?.result === "rejected" ? "bad" : "");
  const said = last ? [...(last.problems ?? []), ...(last.need_restart ?? []).map((place) => `waits for a restart: ${told(place)}`)] : [];
  problems.replaceChildren(...said.map((one) => el("li", {}, told(one))));
  certificates.update(Object.entries(status.certificates).map(([name, one]) => [name, { name, ...one }]));
}

function told(problem) {
  if (typeof problem === "string") return problem;
  if (Array.isArray(problem)) return problem.join(".");
  return [problem.path?.join?.(".") ?? problem.path, problem.line && `line ${problem.line}`, problem.message].filter(Boolean).join(": ");
}

function certificate() {
  const element = el("li");
  return {
    element,
    update(one) {
      say(element, `Certificate of ${one.name}: until ${one.expires}${one.remark && `; ${one.remark}`}`);
      mark(element, one.remark ? "bad" : "");
    },
  };
}
