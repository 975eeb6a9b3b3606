// The server's API: one key in memory, one line for everything that can go wrong.
export class ApiError extends Error {
  constructor(status, message, problems = [], retrySeconds = null) {
    super(message);
    Object.assign(this, { status, problems, retrySeconds });
  }
  // Nothing the person did: trying again later is all there is to do.
  get passing() { return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500; }
}

export class Api {
  #key = null;
  set key(value) { this.#key = value; }
  get hasKey() { return this.#key !== null; }

  // Paths are relative to the page, so that it works behind a proxy's prefix, too.
  url(path) { return new URL(path.replace(/^\/+/, ""), new URL(".", location.href)).href; }

  get(path, signal) { return this.#ask(path, { signal }); }
  post(path, body, signal) {
    return this.#ask(path, { method: "POST", body, signal, headers: { "Content-Type": "application/json" } });
  }

  async #ask(path, options) {
    const headers = { ...options.headers, ...(this.#key === null ? {} : { "X-API-Key": this.#key }) };
    let answer, text;
    try {
      answer = await fetch(this.url(path), { ...options, headers, cache: "no-store", credentials: "same-origin", redirect: "error" });
      text = await answer.text();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "The server does not answer.");
    }
    let found = null;
    try { found = JSON.parse(text); } catch { /* a proxy's page */ }
    if (answer.ok && found !== null) return found;
    const said = typeof found?.error === "string" ? found.error : `The server answers ${answer.status}${answer.ok ? " without JSON" : ""}.`;
    const retry = Number.parseFloat(answer.headers.get("retry-after"));
    throw new ApiError(answer.ok ? 502 : answer.status, said, Array.isArray(found?.problems) ? found.problems : [], retry >= 0 ? retry : null);
  }
}

// Each call ends the one before.
function ending(call) {
  let controller = null;
  const run = () => {
    controller?.abort();
    controller = new AbortController();
    call(controller.signal);
  };
  run.cancel = () => controller?.abort();
  return run;
}

// Calls at most every `milliseconds`, and once after the last wish.
export function atMostEvery(milliseconds, call) {
  const run = ending(call);
  let timer = null, last = -Infinity;
  return () => {
    timer ??= setTimeout(() => { timer = null; last = performance.now(); run(); }, Math.max(0, last + milliseconds - performance.now()));
  };
}

// Calls when nothing was wished for `milliseconds`.
export function whenQuiet(milliseconds, call) {
  const run = ending(call);
  let timer = null;
  const wish = () => { clearTimeout(timer); timer = setTimeout(run, milliseconds); };
  wish.cancel = () => { clearTimeout(timer); run.cancel(); };
  return wish;
}
