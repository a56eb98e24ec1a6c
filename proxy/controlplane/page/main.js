// The page: it shows what the proxy says each second, and says so when the proxy says nothing.

import { json, token } from "./api.js";
import * as canaries from "./canaries.js";
import { find, mark, say } from "./dom.js";
import { clock } from "./format.js";
import { Live } from "./live.js";
import * as log from "./log.js";
import * as overview from "./overview.js";
import * as playground from "./playground.js";
import { gap } from "./spark.js";
import * as tables from "./tables.js";

const MORE_MS = 5000; // what comes by no event is asked for so often
const THEMES = ["system", "light", "dark"];

let away = null; // since when
let version = null;
let asked = -Infinity;

const live = new Live({
  event(name, content) {
    if (name === "canary") canaries.canary(content);
    else if (name === "decision") log.decision(content);
    else if (name === "status") status(content);
  },

  up() {
    if (away !== null) asked = -Infinity; // what was asked may have changed
    away = null;
    find("unlock").hidden = true;
    find("shown").hidden = find("parts").hidden = false;
    find("shown").classList.remove("stale");
    find("forget").hidden = !token.get();
    link("live", "good");
    notice("");
  },

  away(why) {
    away ??= Date.now();
    gap();
    overview.away();
    find("shown").classList.add("stale"); // it is as it was
    link("not there", "bad");
    const since = `since ${clock(away)}`;
    notice(
      why && why !== "it ended"
        ? `The admin API refuses: ${why}`
        : `The proxy is not there ${since}. It may be restarting; this page goes on by itself when it is back.`,
    );
  },

  locked(why) {
    const tried = token.get() !== "";
    token.forget();
    find("forget").hidden = true;
    find("shown").hidden = find("parts").hidden = true;
    find("unlock").hidden = false;
    say(find("unlock-why"), tried ? "This token is not one of them." : "");
    find("unlock").dataset.said = why;
    link("locked", "middling");
    notice("");
    find("token").focus();
  },
});

function status(content) {
  say(find("version"), content.version);
  if (version !== null && version !== content.version) location.reload(); // the page of that version
  version = content.version;
  if (content.ready) link("live", "good");
  else link("draining", "middling");
  document.title = `${content.traffic.requests_per_s.toFixed(1)}/s · Serinus`;
  overview.update(content);
  canaries.update(content);
  tables.update(content);
  log.update(content);
  if (performance.now() - asked > MORE_MS && !document.hidden) {
    asked = performance.now();
    Promise.all([json("/clients").then((found) => tables.showClients(found.clients)), playground.update()]).catch(() => {
      // Who does not answer is said where the events end.
    });
  }
}

function link(text, look) {
  say(find("link"), text);
  mark(find("link"), `chip ${look}`);
}

function notice(text) {
  find("notice").hidden = !text;
  say(find("notice"), text);
}

// --- the reader -----------------------------------------------------------------------------------------------------

find("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(find("token").value.trim());
  find("token").value = "";
  live.unlock();
});

find("forget").addEventListener("click", () => {
  token.forget();
  location.reload(); // nothing that it showed is left
});

function theme(step) {
  const now = document.documentElement.dataset.theme ?? "system";
  const chosen = THEMES[(THEMES.indexOf(now) + step) % THEMES.length];
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  say(find("theme"), { system: "Theme: auto", light: "Theme: light", dark: "Theme: dark" }[chosen]);
  find("theme").setAttribute("aria-label", `Theme: ${chosen}`);
  try {
    if (step) localStorage.setItem("serinus-theme", chosen);
  } catch {
    // No storage: until the page is left.
  }
}

find("theme").addEventListener("click", () => theme(1));
theme(0);
for (const part of [overview, canaries, tables, log, playground]) part.begin();
live.run();
