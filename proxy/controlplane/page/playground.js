// A call to try: streamed through the proxy, with what it took and who answered. The key is kept in this page's memory.

import { Locked, ask, events, json } from "./api.js";
import { el, find, mark, say } from "./dom.js";
import { DASH, withUnit } from "./format.js";

const MOST_TOKENS = 1024;
const FACTS = ["upstream", "arm", "tries", "first token", "whole", "tokens", "tokens/s", "request"];

let form = null;
const facts = {};
const answer = el("output", { class: "answer", tabindex: "0", "aria-label": "Answer", "aria-live": "off" });
const said = el("p", { class: "said", role: "status" });
let running = null;

export function begin() {
  form = el(
    "form",
    { class: "card try", focusin: () => listed || models(), submit: (event) => (event.preventDefault(), running ? running.abort() : call()) },
    field("place", "Called", el("select", { id: "place", change: models })),
    field("model", "Model", el("input", { id: "model", placeholder: "gpt-4.1", list: "models", autocomplete: "off", spellcheck: "false", required: true })),
    el("datalist", { id: "models" }),
    field("client-key", "Client key", el("input", { id: "client-key", type: "password", autocomplete: "off", change: models })),
    field("prompt", "Prompt", el("textarea", { id: "prompt", rows: "4", required: true, keydown: sends }, "Say something about canaries.")),
    el("button", { id: "send", type: "submit", class: "main" }, "Send"),
  );
  const list = el("dl", { class: "facts" });
  for (const name of FACTS) {
    facts[name] = el("dd", {}, DASH);
    list.append(el("div", {}, el("dt", {}, name), facts[name]));
  }
  find("playground").append(el("div", { class: "columns uneven" }, form, el("div", { class: "card" }, said, answer, list)));
}

function field(id, label, control) {
  return el("div", { class: "field" }, el("label", { for: id }, label), control);
}

// Control and Enter send, as in many a chat.
function sends(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
}

let there = "";
let listed = ""; // where the models were asked for

// What can be called, as the routes in force have it.
export async function update() {
  const { places, clients } = await json("/playground");
  const now = JSON.stringify([places, clients]);
  if (now === there) return;
  there = now;
  const chosen = find("place").value;
  find("place").replaceChildren(
    ...places.map((place, at) => el("option", { value: at, "data-path": place.path }, `POST ${place.path}`)),
  );
  find("place").value = places[chosen] ? chosen : "0";
  form.places = places;
  form.wantsKey = clients;
  listed = "";
  find("client-key").placeholder = clients ? "clients are listed: one of their keys" : "none is needed";
}

// The models there are: asked for when somebody is about to call, since it is a call itself. To look on makes none.
async function models() {
  const place = form.places?.[find("place").value];
  const key = find("client-key").value;
  if (!place || (form.wantsKey && !key)) return;
  listed = place.models;
  const answered = await relayed({ path: place.models, client_key: key }).then(
    async (found) => (found.ok ? (await found.json()).data ?? [] : []),
    () => [],
  );
  const names = answered.map((model) => model.id).filter((name) => typeof name === "string");
  find("models").replaceChildren(...names.map((name) => el("option", { value: name })));
  if (!find("model").value && names.length) find("model").value = names[0];
}

function relayed(wanted, signal) {
  return ask("/playground", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "text/event-stream, application/json" },
    body: JSON.stringify(wanted),
    signal,
  });
}

async function call() {
  const place = form.places?.[find("place").value];
  if (!place) return;
  const seen = new Seen(place.dialect);
  running = new AbortController();
  say(find("send"), "Stop");
  find("send").classList.add("stops");
  say(answer, "");
  tell("Waiting for the first token.");
  try {
    const wanted = { path: place.path, client_key: find("client-key").value, body: bodyOf(place) };
    const got = await relayed(wanted, running.signal);
    seen.head(got.headers);
    if (got.ok) {
      await events(got, (_, data) => seen.event(data));
      if (seen.error) tell(seen.error, true);
      else tell(seen.ended ? "Whole." : "It was cut: the stream has no end.", !seen.ended);
    } else tell(`${got.status}: ${messageOf(await got.text())}`, true);
  } catch (error) {
    if (running.signal.aborted) tell("Stopped.");
    else if (error instanceof TypeError) tell("The connection broke.", true);
    else tell(error instanceof Locked ? "The admin API wants a token." : error.message, true);
  }
  seen.over();
  running = null;
  say(find("send"), "Send");
  find("send").classList.remove("stops");
}

function tell(text, bad = false) {
  say(said, text);
  mark(said, bad ? "said bad" : "said");
}

function bodyOf(place) {
  const messages = [{ role: "user", content: find("prompt").value }];
  const body = { model: find("model").value, messages, stream: true };
  return place.dialect === "messages" ? { ...body, max_tokens: MOST_TOKENS } : { ...body, stream_options: { include_usage: true } };
}

function messageOf(text) {
  try {
    return JSON.parse(text).error.message;
  } catch {
    return text.slice(0, 500) || "no word of why";
  }
}

// One answer as it comes.
class Seen {
  #began = performance.now();
  #first = null;
  #pieces = 0;
  #tokens = null;
  ended = false;
  error = "";

  constructor(dialect) {
    this.dialect = dialect;
    for (const name of FACTS) say(facts[name], DASH);
  }

  head(headers) {
    say(facts.upstream, headers.get("x-serinus-upstream") ?? DASH);
    say(facts.arm, headers.get("x-serinus-arm") ?? DASH);
    // The one that the log has: an upstream's own stands in the other field.
    say(facts.request, headers.get("x-serinus-request-id") ?? headers.get("x-request-id") ?? DASH);
    say(facts.tries, headers.get("x-serinus-attempts") ?? "1");
  }

  event(data) {
    if (data === "[DONE]") {
      this.ended = true;
      return;
    }
    const event = JSON.parse(data);
    if (event.error) this.error = event.error.message ?? "The upstream says that something went wrong.";
    if (event.type === "message_stop") this.ended = true;
    this.#tokens = event.usage?.completion_tokens ?? event.usage?.output_tokens ?? this.#tokens;
    const text = this.dialect === "messages" ? event.delta?.text : event.choices?.[0]?.delta?.content;
    if (text) this.#text(text);
  }

  #text(text) {
    if (this.#first === null) {
      this.#first = performance.now();
      say(facts["first token"], withUnit(this.#first - this.#began));
      tell("Streaming.");
    }
    this.#pieces += 1;
    const atEnd = answer.scrollTop + answer.clientHeight >= answer.scrollHeight - 4;
    answer.append(text);
    if (atEnd) answer.scrollTop = answer.scrollHeight;
    this.#count();
  }

  #count() {
    const now = performance.now();
    const tokens = this.#tokens ?? this.#pieces;
    say(facts.tokens, String(tokens));
    say(facts.whole, withUnit(now - this.#began));
    if (this.#pieces > 1 && now > this.#first) say(facts["tokens/s"], ((1000 * (tokens - 1)) / (now - this.#first)).toFixed(1));
  }

  over() {
    if (this.#first !== null) this.#count();
    else say(facts.whole, withUnit(performance.now() - this.#began));
  }
}
