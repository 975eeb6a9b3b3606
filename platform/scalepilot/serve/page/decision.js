// The answer of a decision: what is wanted, why, and how near the others were.
import { byId, isObject, make, percent, shown } from "./dom.js";

const SPOKEN_AFTER_MILLISECONDS = 500;
let speaking = null;

// Moves are written with a true minus.
export const changeOf = (label) => (label === null ? null : label === "hold" ? 0 : /^[+−]\d+$/.test(label) ? Number(label.replace("−", "-")) : null);
const direction = (label) => (label?.startsWith("+") ? "more" : label?.startsWith("−") ? "less" : "same");

export function showAnswer(answer, milliseconds) {
  const { explanation = {}, move } = answer, components = isObject(answer.action) ? answer.action : null;
  const verdict = byId("verdict");
  verdict.className = `verdict ${direction(move)}`;
  const hasReplicas = answer.desired_replicas !== undefined;
  byId("desired").textContent = hasReplicas ? shown(answer.desired_replicas) : components ? "" : (move ?? "–");
  byId("unit").textContent = hasReplicas ? (answer.desired_replicas === 1 ? "replica" : "replicas") : components ? componentsText(components) : "";
  byId("move").textContent = hasReplicas && move !== undefined ? move : "";
  byId("move").hidden = !byId("move").textContent;
  byId("words").textContent = explanation.words ?? "";
  const fallback = byId("fallback");
  fallback.hidden = answer.fallback === undefined;
  fallback.textContent = answer.fallback === undefined ? "" : `Fallback: ${answer.fallback}.`;
  showScores(answer);
  byId("answered").textContent = `Answered by ${answer.policy}@${answer.version} in ${Math.max(1, Math.round(milliseconds))} ms.`;
  verdict.setAttribute("data-state", "fresh");
  clearTimeout(speaking);
  // While a slider is dragged nothing is read aloud.
  speaking = setTimeout(() => { byId("spoken").textContent = explanation.words ?? ""; }, SPOKEN_AFTER_MILLISECONDS);
}

export function staleAnswer() { byId("verdict").setAttribute("data-state", "stale"); }

const componentsText = (components) =>
  Object.entries(components).map(([name, value]) => `${name} ${value === null ? "–" : shown(value)}`).join(", ");

function showScores(answer) {
  const host = byId("scores"), shares = answer.probabilities, scores = shares ?? answer.q_values;
  host.hidden = !isObject(scores);
  if (host.hidden) { host.replaceChildren(); return; }
  const values = Object.values(scores), low = Math.min(...values), span = Math.max(...values) - low || 1;
  const rows = Object.entries(scores).map(([label, value]) => {
    const bar = make("span", { class: "bar" });
    bar.style.setProperty("--length", `${100 * (shares ? value : (value - low) / span)}%`);
    const chosen = label === answer.move;
    const name = make("th", { scope: "row" }, label, ...(chosen ? [make("span", { class: "aside" }, " (chosen)")] : []));
    return make("tr", { class: chosen ? `chosen ${direction(label)}` : direction(label) }, name,
      make("td", { class: "bars", "aria-hidden": "true" }, bar), make("td", { class: "number" }, shares ? percent(value) : shown(value, 5)));
  });
  const title = shares ? "Probability of each move" : "Q-value of each move";
  const note = shares ? [] : [make("p", { class: "note" }, "Bars reach from the lowest Q-value to the highest.")];
  host.replaceChildren(make("table", { class: "scores" }, make("caption", {}, title), make("tbody", {}, ...rows)), ...note);
}
