// Asks the server. What it refuses becomes an Error whose message is the server's own sentence.

const WAITED_FOR = new Set(["overloaded", "swapping", "no_predictor"]);
const MOST_TRIES = 4;
let key = "";

class Refused extends Error {
  constructor(kind, sentence) {
    super(sentence);
    this.kind = kind;
  }
}

function useKey(text) {
  key = text;
}

function hasKey() {
  return key !== "";
}

// Returns the answer's JSON; `body` is an object for POST. Tries again where the server says so.
async function asked(path, body = null, waiting = () => {}) {
  for (let tries = 1; ; tries += 1) {
    const answer = await fetched(path, body);
    if (answer.ok) return answer.json();
    const refusal = await refusalOf(answer);
    if (!WAITED_FOR.has(refusal.kind) || tries === MOST_TRIES) throw refusal;
    waiting();
    const seconds = Number(answer.headers.get("retry-after")) || 1;
    await new Promise((go) => setTimeout(go, seconds * 1000));
  }
}

// Asks a model over V1 about one instance, and returns its prediction.
async function predicted(model, instance, parameters, waiting) {
  const body = { instances: [instance], parameters };
  const answer = await asked(`/v1/models/${model}:predict`, body, waiting);
  return answer.predictions[0];
}

async function fetched(path, body = null) {
  const headers = hasKey() ? { "x-api-key": key } : {};
  const how = body === null ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
  try {
    return await fetch(path, { ...how, cache: "no-store" });
  } catch {
    throw new Refused("gone", "The server doesn’t answer. Is it still running?");
  }
}

async function refusalOf(answer) {
  try {
    const said = await answer.json();
    // The place in the request tells a program where to look; on a page there is one clip only.
    const sentence = String(said.error).replace(/^instances\[0\](\.\w+)?: /, "");
    return new Refused(String(said.kind), sentence);
  } catch {
    return new Refused("internal", `The server answered with status ${answer.status}.`);
  }
}
