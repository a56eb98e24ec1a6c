// What is asked of the admin API, with the token that the reader typed: kept for this tab, in its session's storage.

const KEPT = "serinus-token";

export class Locked extends Error {}

export class Refused extends Error {}

export const token = {
  get: () => sessionStorage.getItem(KEPT) ?? "",
  set: (value) => sessionStorage.setItem(KEPT, value),
  forget: () => sessionStorage.removeItem(KEPT),
};

// Throws Locked where the token is missing or wrong, Refused with what the API says, TypeError where nobody answers.
export async function ask(path, options = {}) {
  const headers = { accept: "application/json", ...options.headers };
  if (token.get()) headers.authorization = `Bearer ${token.get()}`;
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.ok || answer.headers.has("x-serinus-playground")) return answer;
  const said = await answer.json().then((content) => content.error, () => answer.statusText);
  if (answer.status === 401) throw new Locked(said);
  throw new Refused(said);
}

export const json = async (path) => (await ask(path)).json();

// Server-sent events of an answer: `each(name, data)` for every one, until it ends.
export async function events(answer, each) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) event(block, each);
  }
}

function event(block, each) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line);
    if (field === "event") name = text;
    if (field === "data") data.push(text);
  }
  if (data.length) each(name, data.join("\n"));
}
