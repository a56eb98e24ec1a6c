// Pools with their members, upstreams with their targets, keys, clients.

import { Parts, el, find, say } from "./dom.js";
import { DASH, failed, lasted, ms, percent, rate } from "./format.js";
import { note, spark } from "./spark.js";
import { state, table } from "./table.js";

const MOST_CLIENTS = 200;

const waits = (of) =>
  ["p50", "p95", "p99"].map((share) => ({
    label: share,
    title: "first byte, ms",
    number: true,
    text: (thing) => ms(of(thing)?.[share]),
  }));

const traffic = (name) => [
  {
    label: "req/s",
    number: true,
    draw: (cell, thing) => spark(cell, name(thing), rate(thing.traffic.requests_per_s)),
  },
  {
    label: "failed",
    number: true,
    text: (thing) => failed(thing.traffic.failed_percent),
    look: (thing) => (thing.traffic.failed_percent ? "bad" : "quiet"),
  },
  ...waits((thing) => thing.traffic.first_byte_ms),
];

// --- pools --------------------------------------------------------------------------------------------------------

let healths = {}; // of upstreams, by name

// As `serinus status` has it: a member that is up is as well as its upstream.
const stateOf = (member) => (member.state === "up" ? (healths[member.upstream] ?? "up") : member.state);

const memberName = (pool, member, at) => `pool ${pool} ${at} ${member.upstream}`;

function pool(name) {
  const title = el("h3", {}, name);
  const about = el("p", { class: "quiet beside" });
  const members = table(`Members of pool ${name}`, [
    { label: "member", class: "name", text: (one) => one.upstream + (one.model ? ` → ${one.model}` : "") },
    { label: "state", draw: (cell, one) => state(cell, stateOf(one)) },
    { label: "weight", number: true, text: (one) => String(one.weight) },
    { label: "asked", title: "the share that its weight asks for", number: true, text: (one) => percent(one.share_percent, 0) },
    { label: "now", title: "its share of the requests", number: true, text: (one) => percent(one.now, 0) },
    ...traffic((one) => one.series),
  ]);
  const element = el("div", { class: "card" }, el("div", { class: "head" }, title, about), members.element);
  return {
    element,
    update(shown) {
      const whole = shown.traffic.requests_per_s;
      const first = shown.traffic.first_byte_ms;
      say(about, `${rate(whole)} req/s · ${failed(shown.traffic.failed_percent)} failed · first byte ${ms(first?.p50)} ms`);
      members.update(
        shown.members.map((member, at) => {
          const series = memberName(name, member, at);
          note(series, member.traffic.requests_per_s);
          const now = whole ? (100 * member.traffic.requests_per_s) / whole : null;
          return [series, { ...member, series, now }];
        }),
      );
    },
  };
}

// --- upstreams ----------------------------------------------------------------------------------------------------

const upstreams = table("Upstreams", [
  { label: "upstream", class: "name", text: (one) => one.name },
  { label: "health", draw: (cell, one) => state(cell, one.health) },
  { label: "address", class: "address quiet", text: (one) => one.url ?? "" },
  { label: "in flight", number: true, text: (one) => String(one.inflight) },
  {
    label: "req/s",
    number: true,
    draw: (cell, one) => (one.traffic ? spark(cell, one.series, rate(one.traffic.requests_per_s)) : say(cell, "")),
  },
  {
    label: "failed",
    number: true,
    text: (one) => (one.traffic ? failed(one.traffic.failed_percent) : ""),
    look: (one) => (one.traffic?.failed_percent ? "bad" : "quiet"),
  },
  ...waits((one) => one.traffic?.first_byte_ms),
  { label: "since the start", class: "outcomes quiet", text: (one) => outcomes(one.outcomes) },
]);

function outcomes(counts = {}) {
  return Object.entries(counts)
    .map(([outcome, count]) => `${count} ${outcome.replaceAll("_", " ")}`)
    .join(", ");
}

function* rows(found) {
  for (const [name, one] of Object.entries(found)) {
    const series = `upstream ${name}`;
    note(series, one.traffic.requests_per_s);
    yield [name, { ...one, name, series }];
    for (const [address, target] of Object.entries(one.targets)) {
      const shown = { name: address, health: target.state, inflight: target.inflight, look: "target" };
      yield [`${name} ${address}`, shown];
    }
  }
}

// --- keys ---------------------------------------------------------------------------------------------------------

const keys = table("Keys of upstreams", [
  { label: "key", class: "name", text: (one) => `${one.upstream} / ${one.key}` },
  { label: "state", draw: (cell, one) => state(cell, one.state) },
  { label: "fingerprint", class: "code", text: (one) => one.fingerprint },
  { label: "in flight", number: true, text: (one) => String(one.inflight) },
  { label: "quota used", number: true, text: (one) => percent(one.used_percent, 0) },
  { label: "last used", number: true, text: (one) => (one.last_used_ago_s == null ? DASH : lasted(one.last_used_ago_s)) },
  { label: "what goes on", class: "wide quiet", text: happening },
]);

function happening(key) {
  const said = Object.entries(key.cooling_s).map(([model, left]) => `rests ${lasted(left)}${model && ` for ${model}`}`);
  if (key.rotation) said.push([key.rotation, key.candidate, key.rotation_said].filter(Boolean).join(": "));
  if (key.draining) said.push(`${key.draining} requests hold older values`);
  return said.join(" · ") || DASH;
}

// --- clients ------------------------------------------------------------------------------------------------------

const clients = table("Clients", [
  { label: "client", class: "name", text: (one) => one.name },
  { label: "keys", draw: (cell, one) => state(cell, keyState(one)) },
  { label: "in flight", number: true, text: (one) => String(one.inflight) },
  { label: "refused", number: true, text: (one) => String(sum(one.refused)), look: (one) => (sum(one.refused) ? "bad" : "quiet") },
  { label: "left of its limits", class: "wide", text: left },
  { label: "models", class: "wide quiet", text: (one) => one.models?.join(", ") ?? "all" },
  { label: "fingerprints", class: "wide code", text: (one) => one.keys.map((key) => key.fingerprint).join(" ") || DASH },
]);

const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);

function keyState(client) {
  const states = client.keys.map((key) => key.state);
  return states.includes("active") ? "active" : (states[0] ?? "no key");
}

function left(client) {
  const said = Object.entries(client.limits).map(([limit, of]) => `${client.left[limit]} of ${of} ${limit.replaceAll("_", " ")}`);
  return said.join(" · ") || "no limits";
}

export function showClients(found) {
  find("clients").hidden = !found.length;
  clients.update(found.slice(0, MOST_CLIENTS).map((one) => [one.name, one]));
  say(more, found.length > MOST_CLIENTS ? `and ${found.length - MOST_CLIENTS} more: serinus clients list` : "");
}

// --- all of it ----------------------------------------------------------------------------------------------------

const more = el("p", { class: "quiet" });
const noKeys = el("p", { class: "quiet" }, "No upstream has a key here: callers' own credentials are passed on.");
let pools = null;

export function begin() {
  const list = el("div", { class: "stack" });
  pools = new Parts(list, pool);
  find("pools").append(list);
  find("upstreams").append(el("div", { class: "card" }, upstreams.element));
  find("keys").append(el("div", { class: "card" }, keys.element, noKeys));
  find("clients").append(el("div", { class: "card" }, clients.element, more));
}

export function update(status) {
  healths = Object.fromEntries(Object.entries(status.upstreams).map(([name, one]) => [name, one.health]));
  pools.update(Object.entries(status.pools));
  upstreams.update([...rows(status.upstreams)]);
  const held = Object.values(status.upstreams).flatMap((one) => Object.values(one.keys));
  keys.element.hidden = !held.length;
  noKeys.hidden = held.length > 0;
  keys.update(held.map((key) => [`${key.upstream}/${key.key}`, key]));
}
