// What the evaluation says, in whichever of its forms: figures with intervals, beside others where there are others.
import { byId, fixed, isNumber, isObject, make, percent, shown } from "./dom.js";

// Heading, meaning, digits after the point.
const FIGURES = {
  J: ["J", "cost and penalties, per hour", 2],
  cost: ["Replicas' cost", "per hour", 2],
  penalty: ["Penalty", "for late requests, per hour", 2],
  move_cost: ["Moves' cost", "per hour", 2],
  late_share: ["Late requests", "share"],
  replicas: ["Replicas", "mean", 2],
  latency_p95_seconds: ["Latency p95", "s", 3],
  actions: ["Moves", "per episode", 1],
  episode_return: ["Return", "per episode", 1],
};
const isInterval = (x) => isObject(x) && "mean" in x && (x.mean === null || isNumber(x.mean));
const MOST_ROWS = 40;

const heading = (metric) => FIGURES[metric] ?? [metric, ""];
// Shares of late requests are judged in hundredths of a percent.
const fineShare = (share) => `${fixed(100 * share, 2)} %`;
function formatter(metric) {
  if (/share|gap/.test(metric)) return fineShare;
  const digits = FIGURES[metric]?.[2];
  return digits === undefined ? (x) => shown(x, 4) : (x) => fixed(x, digits);
}
function cell(metric, interval, tag = "td") {
  if (!isInterval(interval) || interval.mean === null) return make(tag, { class: "number", "data-label": heading(metric)[0] }, "–");
  const text = formatter(metric), { mean, low, high } = interval;
  const range = isNumber(low) && isNumber(high) ? [make("span", { class: "interval" }, `${text(low)} to ${text(high)}`)] : [];
  return make(tag, { class: "number", "data-label": heading(metric)[0] }, make("span", { class: "mean" }, text(mean)), ...range);
}
function table(rows, chosen, roles = {}) {
  const present = new Set(Object.values(rows).flatMap((row) => Object.keys(row).filter((metric) => isInterval(row[metric]) && !(metric === "move_cost" && !row[metric].mean))));
  const metrics = [...Object.keys(FIGURES).filter((m) => present.delete(m)), ...present].slice(0, MOST_ROWS);
  if (!metrics.length) return null;
  const head = metrics.map((metric) => {
    const [name, meaning] = heading(metric);
    return make("th", { scope: "col", class: "number" }, name, ...(meaning ? [make("span", { class: "interval" }, meaning)] : []));
  });
  const body = Object.entries(rows).slice(0, MOST_ROWS).map(([name, row]) =>
    make("tr", name === chosen ? { class: "best" } : {},
      make("th", { scope: "row" }, make("span", { class: "name" }, name), ...(roles[name] ? [make("span", { class: "interval" }, String(roles[name]))] : [])),
      ...metrics.map((metric) => cell(metric, row[metric]))));
  return make("table", { class: "cards" },
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Policy"), ...head)), make("tbody", {}, ...body));
}

function gaps(found) {
  const known = Object.entries(isObject(found) ? found : {}).filter(([, gap]) => isInterval(gap) && gap.mean !== null);
  if (!known.length) return null;
  const items = known.map(([name, gap]) => make("div", {}, make("dt", {}, `Gap to ${name} closed`),
    make("dd", {}, percent(gap.mean), isNumber(gap.low) && isNumber(gap.high) ? ` (${percent(gap.low)} to ${percent(gap.high)})` : "")));
  return make("dl", { class: "facts" }, ...items);
}

export function facts(values) {
  const plain = Object.entries(values).filter(([, value]) => ["string", "number", "boolean"].includes(typeof value) && value !== "");
  return plain.slice(0, MOST_ROWS).map(([name, value]) =>
    make("div", {}, make("dt", {}, name.replaceAll("_", " ")), make("dd", {}, isNumber(value) ? shown(value, 8) : String(value))));
}

export function showEvaluation(policy) {
  const { evaluation, name } = policy, host = byId("evaluation-body"), parts = [];
  host.replaceChildren();
  if (isObject(evaluation)) {
    const rows = isObject(evaluation.policies) ? Object.fromEntries(Object.entries(evaluation.policies).filter(([, row]) => isObject(row))) : { [name]: evaluation };
    const gap = evaluation.gap_closed?.[name] ?? evaluation.gap_closed;
    parts.push(table(rows, name, isObject(evaluation.roles) ? evaluation.roles : {}), gaps(gap));
    const where = Array.isArray(evaluation.workloads) ? evaluation.workloads.join(", ") : "";
    const about = facts({ ...(where ? { workload: where } : {}), ...evaluation });
    if (about.length) parts.push(make("dl", { class: "facts" }, ...about));
    if (parts.some((part) => part?.tagName === "TABLE")) parts.push(make("p", { class: "note" }, "Means of the test episodes with 95 % intervals."));
  }
  host.append(...parts.filter(Boolean));
  byId("evaluation").hidden = !host.childElementCount;
}
