// The whole proxy in one line of figures.

import { el, find, mark, say } from "./dom.js";
import { DASH, failed, lasted, ms, rate } from "./format.js";
import { note, spark } from "./spark.js";

const tiles = {};

export function begin() {
  const list = el("dl", { class: "tiles" });
  for (const [name, title] of [
    ["requests", "Requests a second"],
    ["failed", "Failed"],
    ["firstByte", "First byte, ms"],
    ["whole", "Whole answer, ms"],
    ["flight", "In flight"],
    ["process", "Process"],
  ]) {
    const value = el("dd", { class: "value" });
    const more = el("dd", { class: "more quiet" });
    tiles[name] = { value, more };
    list.append(el("div", { class: `tile ${name}` }, el("dt", {}, title), value, more));
  }
  find("overview").append(list);
}

export function update(status) {
  const { traffic } = status;
  note("all", traffic.requests_per_s);
  spark(tiles.requests.value, "all", rate(traffic.requests_per_s));
  say(tiles.requests.more, `${rate(status.answered_here_per_s)} answered here · last ${Math.round(status.window_s)} s`);
  say(tiles.failed.value, failed(traffic.failed_percent));
  mark(tiles.failed.value, traffic.failed_percent >= 5 ? "value bad" : "value");
  say(tiles.failed.more, unwell(status));
  quantiles(tiles.firstByte, traffic.first_byte_ms);
  quantiles(tiles.whole, traffic.duration_ms);
  const inflight = Object.values(status.upstreams).reduce((sum, upstream) => sum + upstream.inflight, 0);
  say(tiles.flight.value, String(inflight));
  say(tiles.flight.more, `${status.connections} connections of callers`);
  say(tiles.process.value, status.ready ? "serving" : "draining");
  mark(tiles.process.value, status.ready ? "value" : "value middling");
  const workers = status.workers === 1 ? "1 process" : `${status.workers} workers`;
  say(tiles.process.more, `${workers} · up ${lasted(status.uptime_s)}`);
}

export function away() {
  say(tiles.process.value, "not there");
  mark(tiles.process.value, "value bad");
}

function quantiles(tile, found) {
  say(tile.value, found ? ms(found.p50) : DASH);
  say(tile.more, found ? `p95 ${ms(found.p95)} · p99 ${ms(found.p99)}` : "nothing came");
}

function unwell(status) {
  const named = Object.entries(status.upstreams).filter(([, one]) => ["failing", "unhealthy"].includes(one.health));
  return named.length ? named.map(([name, one]) => `${name} ${one.health}`).join(", ") : "no upstream is failing";
}
