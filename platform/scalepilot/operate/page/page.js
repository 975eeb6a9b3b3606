// Asks the controller what is new, and shows it.
import { byId, isNumber, make, percent, shown } from "./dom.js";
import { clockText, drawPlot, keyOf } from "./plot.js";

const MODE_WORDS = {
  active: "Active", degraded: "Degraded", starting: "Starting", holding: "Holding", fallback: "Fallback", safe: "Safe level",
  paused: "Paused", contested: "Contested", standby: "Standby",
};
const GOOD = ["active"], BAD = ["holding", "fallback", "safe", "contested"];
const RANGES = [["15 min", 900], ["1 h", 3600], ["All", 0]];
const MOST_ROWS = 5000, LISTED = 12, LATE_INTERVALS = 3;
const COMMANDS = (origin) =>
  ["pause", "resume", "acknowledge"].map((word) => `curl -X POST ${origin}/v1/${word}`).join("\n") +
  "\nkill -USR1 PID      # pause, and again: resume";

const state = { rows: [], info: null, span: 0, under: null, at: null, heard: 0, problem: "" };

async function poll() {
  try {
    const since = state.rows.at(-1)?.time ?? 0;
    const answer = await fetch(`v1/history?since=${since}`, { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(`it answers ${answer.status}`);
    const info = await answer.json();
    const rows = info.rows.map((row) => Object.fromEntries(info.columns.map((name, i) => [name, row[i]])));
    // What is ahead of the controller's clock was decided before the clock was set back.
    const kept = state.rows.filter((row) => row.time <= info.now + info.interval_seconds), isNew = rows.length > 0 || kept.length < state.rows.length;
    state.rows = [...kept, ...rows].slice(-MOST_ROWS);
    Object.assign(state, { info, heard: Date.now(), problem: "" });
    show(isNew);
  } catch (error) {
    state.problem = error.name === "TimeoutError" || error instanceof TypeError ? "" : `: ${error.message}`;
    say(`No answer from the controller since ${state.heard ? clockText(state.heard / 1000, true) : "this page was opened"}${state.problem}. What follows is old.`);
  }
  const interval = state.info ? state.info.interval_seconds / state.info.pace : 1;
  setTimeout(poll, 1000 * Math.min(5, Math.max(0.5, interval / 2)));
}

function say(text) {
  byId("alert").textContent = text;
  byId("alert").hidden = !text;
}

function show(isNew) {
  const { info, rows } = state, newest = rows.at(-1);
  document.title = `${newest ? `${MODE_WORDS[newest.mode] ?? newest.mode} · ` : ""}${info.policy} · Scalepilot`;
  byId("title").textContent = `${info.policy} ${info.dry_run ? "watches" : "runs"} ${info.target}`;
  byId("eyebrow").textContent = `Scalepilot operate · a decision every ${shown(info.interval_seconds)} s${info.dry_run ? " · dry run, nothing is written" : ""}`;
  if (!newest) { say(""); return; }
  const age = Math.max(0, info.now - newest.time), late = age > LATE_INTERVALS * info.interval_seconds;
  say(late ? `No decision for ${shown(Math.round(age))} s.` : "");
  byId("when").textContent = `${clockText(newest.time, true)}, ${shown(Math.round(age))} s ago${info.paused ? " · paused from the next decision on" : ""}`;
  if (!isNew) return;
  byId("verdict").className = `verdict ${GOOD.includes(newest.mode) ? "better" : BAD.includes(newest.mode) ? "worse" : "unsure"}`;
  byId("mode").textContent = MODE_WORDS[newest.mode] ?? newest.mode;
  byId("reason").textContent = info.reason;
  byId("sentence").textContent = newest.sentence;
  figures(newest);
  draw();
  byId("decisions").replaceChildren(...rows.slice(-LISTED).reverse().map(decision));
  fields(info.fields);
}

const known = (value, text = shown) => (value === null ? "–" : text(value));

function figures(row) {
  const told = [
    ["Ready", known(row.ready)], ["Target", known(row.target)], ["Wanted", known(row.wanted)], ["Asked for before", known(row.spec)],
    ["Requests/s", known(row.rate_rps, (rate) => shown(rate, 3))], ["Late", known(row.late_share, percent)],
  ];
  byId("figures").replaceChildren(...told.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, make("span", { class: "big" }, value)))));
}

const modeCell = (mode) => make("td", {}, make("span", { class: `dot m-${mode}` }), MODE_WORDS[mode] ?? mode);
const decision = (row) => make("tr", {}, make("td", {}, clockText(row.time, true)), modeCell(row.mode), make("td", {}, row.sentence));

function fields(readings) {
  const entries = Object.entries(readings), unknown = entries.filter(([, reading]) => reading.value === null).length;
  byId("fields-title").textContent = `Fields (${entries.length - unknown} of ${entries.length} known)`;
  byId("fields").replaceChildren(...entries.map(([name, reading]) => {
    const value = isNumber(reading.value) ? shown(reading.value) : "unknown", about = [reading.source, reading.problem].filter(Boolean).join(": ");
    return make("tr", {},
      make("th", { scope: "row" }, make("span", { class: "name" }, name)),
      make("td", { class: `number${reading.value === null ? " unknown" : ""}`, "data-label": "Value" }, value),
      make("td", { class: "number", "data-label": "Age" }, isNumber(reading.age_seconds) ? `${shown(reading.age_seconds, 2)} s` : "–"),
      make("td", { "data-label": "Source" }, about || "–"));
  }));
}

function draw() {
  if (!state.rows.length) return;
  state.under = drawPlot(byId("live"), state.rows, state.info.interval_seconds, state.span);
  if (state.at) point(state.at);
}

function point(event) {
  state.at = event;
  if (!state.under) return;
  const box = byId("live").getBoundingClientRect(), at = event.clientX - box.left, row = state.under(at), tip = byId("tip");
  if (!row) return;
  tip.textContent = [
    `${clockText(row.time, true)} · ${MODE_WORDS[row.mode] ?? row.mode}`,
    `ready ${known(row.ready)}, target ${known(row.target)}, wanted ${known(row.wanted)}`,
    `${known(row.rate_rps, (rate) => shown(rate, 3))} requests/s, ${known(row.late_share, percent)} late`,
    row.sentence,
  ].join("\n");
  tip.hidden = false;
  tip.style.left = `${Math.max(0, Math.min(at + 14, box.width - tip.offsetWidth))}px`;
  tip.style.top = `${Math.max(0, event.clientY - box.top + 14)}px`;
}

for (const [text, span] of RANGES) {
  const button = make("button", { type: "button", "aria-pressed": String(span === state.span) }, text);
  button.addEventListener("click", () => {
    state.span = span;
    for (const each of byId("ranges").children) each.setAttribute("aria-pressed", String(each === button));
    draw();
  });
  byId("ranges").append(button);
}
byId("keys").append(...[["ready", "ready"], ["target", "target, within the limits"], ["wanted", "wanted by the policy"], ["late", "late requests"]].map(([kind, text]) => keyOf(kind, text)));
byId("commands").textContent = COMMANDS(location.origin);
byId("live").addEventListener("pointermove", point);
byId("live").addEventListener("pointerleave", () => { state.at = null; byId("tip").hidden = true; state.under?.(null); });
new ResizeObserver(() => requestAnimationFrame(draw)).observe(byId("live"));
poll();
