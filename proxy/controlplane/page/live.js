// Follows the proxy: for as long as it answers, and when it does not, asks again until it does.

import { Locked, Refused, ask, events } from "./api.js";

const WINDOW = "10s";
const SILENT_MS = 6000; // an event comes every second: whoever says nothing for so long is not there
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 2000;

export class Live {
  #wake = () => {};
  #locked = false;
  #pause = FIRST_PAUSE_MS;

  // `on`: event(name, content), up(), away(why), locked(why).
  constructor(on) {
    this.on = on;
    addEventListener("online", () => this.now());
    document.addEventListener("visibilitychange", () => document.hidden || this.now());
  }

  async run() {
    for (;;) {
      try {
        await this.#follow();
        this.on.away("it ended");
      } catch (error) {
        if (error instanceof Locked) {
          this.#locked = true;
          this.on.locked(error.message);
          await this.#woken();
          continue;
        }
        this.on.away(error instanceof Refused ? error.message : "");
      }
      await this.#woken(this.#pause);
      this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE_MS);
    }
  }

  // Ask again without waiting.
  now() {
    if (!this.#locked) this.#wake();
  }

  // There is a token to try.
  unlock() {
    this.#locked = false;
    this.#wake();
  }

  async #follow() {
    const stop = new AbortController();
    let silent = setTimeout(() => stop.abort(), SILENT_MS);
    try {
      const answer = await ask(`/status?window=${WINDOW}`, {
        headers: { accept: "text/event-stream" },
        signal: stop.signal,
      });
      this.on.up();
      await events(answer, (name, data) => {
        clearTimeout(silent);
        silent = setTimeout(() => stop.abort(), SILENT_MS);
        this.#pause = FIRST_PAUSE_MS;
        this.on.event(name, JSON.parse(data));
      });
    } finally {
      clearTimeout(silent);
    }
  }

  #woken(afterMs = 0) {
    return new Promise((resolve) => {
      const timer = afterMs ? setTimeout(resolve, afterMs) : 0;
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
