// The page's thread: list → policy → observation → decision, map and commands; and what to do when an answer fails.
import { Api, ApiError, atMostEvery } from "./api.js";
import { prepareCopying, showCommands } from "./commands.js";
import { showAnswer, staleAnswer } from "./decision.js";
import { byId, isObject } from "./dom.js";
import { facts, showEvaluation } from "./evaluation.js";
import { Fields } from "./fields.js";
import { ActionMap } from "./map.js";
import { Policies, referenceOf } from "./policies.js";

const DECIDE_EVERY_MILLISECONDS = 60;
const FIRST_RETRY_SECONDS = 2, LONGEST_RETRY_SECONDS = 30;

const api = new Api();
let policy = null, state = null, relisted = "", retryTimer = null, retrySeconds = FIRST_RETRY_SECONDS, again = () => {};

const fields = new Fields(() => decide());
const map = new ActionMap((body, signal) => api.post(policy.decide_url, body, signal), goTo);
const policies = new Policies((chosen) => void attempt(() => open(chosen)));

// Failures: a key is asked for, everything else is a line on top that tries again by itself where that may help.
async function attempt(work, retry = () => void attempt(work)) {
  try {
    await work();
    calm();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === 401) askForKey(error, retry);
    else complain(error, retry);
  }
}

function calm() {
  clearTimeout(retryTimer);
  retrySeconds = FIRST_RETRY_SECONDS;
  byId("alert").hidden = true;
}

function complain(error, retry) {
  clearTimeout(retryTimer);
  again = () => { clearTimeout(retryTimer); retry(); };
  const wait = Math.max(retrySeconds, error.retrySeconds ?? 0);
  const [text] = byId("alert").children;
  text.textContent = error.passing ? `${error.message} Trying again in ${wait} s.` : (error.message ?? String(error));
  byId("alert").hidden = false;
  if (!error.passing) return;
  retryTimer = setTimeout(again, 1000 * wait);
  retrySeconds = Math.min(LONGEST_RETRY_SECONDS, 2 * retrySeconds);
}

function askForKey(error, retry) {
  clearTimeout(retryTimer);
  byId("alert").hidden = true;
  byId("key-form").hidden = false;
  byId("key-problem").hidden = !api.hasKey;
  byId("key-problem").textContent = error.message;
  byId("key").focus();
  byId("key-form").onsubmit = (event) => {
    event.preventDefault();
    const key = byId("key").value.trim();
    // What cannot be in a header would be a failure of the network to `fetch`.
    if (!/^[\x21-\x7e]+$/.test(key)) {
      byId("key-problem").textContent = "A key has visible ASCII characters without spaces.";
      byId("key-problem").hidden = false;
      return;
    }
    api.key = key;
    byId("key").value = "";
    byId("key-form").hidden = true;
    retry();
  };
}

async function load() {
  const { policies: list } = await api.get("v1/policies");
  if (!Array.isArray(list) || !list.length) throw new ApiError(503, "No policy is served yet.");
  byId("main").hidden = false;
  await open(policies.show(list, policy ? wantedOf(policy) : fromAddress()));
}

// The default is wanted by its name alone: when another version takes its place, the page goes along.
const wantedOf = (one) => (one.default ? one.name : referenceOf(one));
const fromAddress = () => location.hash.slice(1);

async function open(chosen) {
  const found = await api.get(`v1/policies/${chosen.name}@${chosen.version}`);
  const same = policy && referenceOf(policy) === referenceOf(found);
  policy = found;
  history.replaceState(null, "", `#${wantedOf(policy)}`);
  document.title = `${policy.name} · Scalepilot`;
  showEvaluation(policy);
  const made = facts(isObject(policy.provenance) ? policy.provenance : {});
  byId("provenance-facts").replaceChildren(...made);
  byId("provenance").hidden = !made.length;
  if (!same) {
    state = null;
    showMemory();
    fields.show(policy.observation_fields, policy.example);
    map.show(policy, fields);
  }
  decide();
}

function request() {
  const body = { observation: fields.ordered() };
  if (state !== null && byId("send-state").checked) body.state = state;
  return { ...body, explain: true };
}

// Once for each surprise: replicas may disagree for a while, and asking them faster does not help.
async function listAgain(surprise) {
  if (relisted === surprise) return false;
  relisted = surprise;
  await load();
  return true;
}

async function decideNow(signal) {
  const asked = policy, body = request(), began = performance.now();
  showCommands(api.url(asked.decide_url), body, api.hasKey);
  try {
    const answer = await api.post(asked.decide_url, JSON.stringify(body), signal);
    if (asked !== policy) return;
    showProblem("");
    fields.problems([]);
    state = answer.state ?? null;
    showMemory();
    showAnswer(answer, performance.now() - began);
    map.refresh();
    if (answer.version !== asked.version && !asked.route?.canary) await listAgain(answer.version);
    else relisted = "";
  } catch (error) {
    if (error.name === "AbortError") throw error;
    staleAnswer();
    if (error.status === 404 && await listAgain("none")) return;
    if (error.status !== 422) throw error;
    const homeless = fields.problems(error.problems);
    showProblem(homeless.length || !error.problems.length ? error.message : "");
    map.refresh.cancel();
    map.say("The map waits for an observation that the policy takes.");
  }
}
const decide = atMostEvery(DECIDE_EVERY_MILLISECONDS, (signal) => void attempt(() => decideNow(signal), decide));

function showProblem(text) {
  byId("request-problem").hidden = !text;
  byId("request-problem").textContent = text;
}

function showMemory() {
  byId("memory").hidden = !policy.state;
  if (!policy.state) return;
  const parts = Object.entries(policy.state).map(([name, shape]) => (shape.length ? `${name} (${shape.join(" × ")} numbers)` : name));
  byId("memory-note").textContent = `It remembers from call to call: ${parts.join(", ")}. The client keeps that; without it each decision is a first one.`;
  byId("state").textContent = state === null ? "none yet" : JSON.stringify(state, null, 1);
}

function goTo(moves) {
  fields.moveAll(moves);
  map.draw();
}

byId("alert").querySelector("button").addEventListener("click", () => again());
byId("reload").addEventListener("click", () => void attempt(load));
byId("again").addEventListener("click", () => decide());
byId("send-state").addEventListener("change", () => decide());
byId("follow").addEventListener("change", () => map.refresh());
addEventListener("hashchange", () => {
  if (policy && fromAddress() !== wantedOf(policy)) void attempt(() => open(policies.show(policies.list, fromAddress())));
});
prepareCopying();
void attempt(load);
