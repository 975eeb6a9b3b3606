// The observations behind a map, and the colours of what was answered to them.
import { isNumber, isObject, mix, niceAbove, shown } from "./dom.js";
import { changeOf } from "./decision.js";
import { follow } from "./quantities.js";

const POINTS = 41;
const FEWEST_POINTS = 9;
const MOST_OBSERVATIONS = 4096;
// Below the server's usual limit of 1 MiB; field names take most of it.
const MOST_CHARACTERS = 900_000;
const MOST_CLASSES = 9;
const SCALE_STEPS = 24;
// As in the reports: fewer replicas in blues, more in oranges, from little to much.
const FEWER = ["#9ecae9", "#4f9bd0", "#0f6cab", "#0a4a78"], MORE = ["#fdd49e", "#fdae61", "#f0733a", "#c23b1e"];
const LOW = "#fdedc8", HIGH = "#0f5a96", BROKEN = "#7b2d8b";
const KINDS = ["#3b8fd0", "#e08a3c", "#46a884", "#b36ad0", "#c8a92f", "#8a949e", "#d0607a", "#5a6fd6"];
const FALLBACK = "fallback";
const EDGES = [[1, 2, 3, 4], [1, 2, 5, 10], [1, 5, 10, 25], [1, 10, 25, 50]];

function points(scale, most) {
  if (scale.whole && !scale.unitStep) {
    const step = Math.max(1, Math.ceil((scale.high - scale.low) / (most - 1)));
    return Array.from({ length: Math.floor((scale.high - scale.low) / step) + 1 }, (_, i) => scale.low + i * step);
  }
  return [...new Set(Array.from({ length: most }, (_, i) => scale.value((i / (most - 1)) * scale.steps)))];
}

// Rows upwards, each from left to right, in one request.
export function gridRequest(base, x, y, following, most = POINTS) {
  const names = Object.keys(base), moved = [...x.members, ...y.members];
  const across = points(x.scale, most), up = points(y.scale, most), observation = [];
  for (const v of up) {
    for (const u of across) {
      const values = { ...base };
      x.set(values, u);
      y.set(values, v);
      if (following) follow(values, moved);
      observation.push(Object.fromEntries(names.map((name) => [name, Number(values[name].toPrecision(7))])));
    }
  }
  const body = JSON.stringify({ observation });
  if ((body.length > MOST_CHARACTERS || observation.length > MOST_OBSERVATIONS) && most > FEWEST_POINTS)
    return gridRequest(base, x, y, following, Math.max(FEWEST_POINTS, Math.min(most - 1, Math.floor(most * Math.sqrt(MOST_CHARACTERS / body.length)))));
  return { body, across, up, most };
}
export const coarser = (most) => (most > FEWEST_POINTS ? Math.max(FEWEST_POINTS, Math.floor(0.6 * most)) : null);

export function colourings(policy) {
  const found = policy.components.map(({ name, unit }) => ({ key: `component:${name}`, label: unit ? `${name} (${unit})` : name, of: (a) => (isObject(a.action) ? a.action[name] : null) }));
  if (!policy.components.length) found.push({ key: "move", label: policy.replicas ? "move" : "action", of: (a) => a.move ?? null, moves: true });
  if (policy.replicas) found.push({ key: "replicas", label: "desired replicas", of: (a) => a.desired_replicas });
  return found;
}

function shades(labels, hold) {
  const fewer = labels.filter((label) => label.startsWith("−")).reverse(), more = labels.filter((label) => label.startsWith("+"));
  const at = (list, row) => list[Math.min(row, list.length - 1)];
  return labels.map((label) => (label === "hold" ? hold : fewer.includes(label) ? at(FEWER, fewer.indexOf(label)) : at(MORE, more.indexOf(label))));
}

// Every cell's class, what each class looks like, and how much of the map it covers.
export function paint(answers, colouring, policy, hold) {
  const values = answers.map((a) => (a.fallback !== undefined && colouring.key !== "replicas" ? FALLBACK : colouring.of(a)));
  const labels = new Set(values.filter((v) => v !== FALLBACK));
  const inTable = colouring.moves && [...labels].every((label) => policy.moves.includes(label));
  if (inTable) {
    const order = policy.moves.filter((label) => labels.has(label));
    const steps = policy.moves.every((label) => /^(hold|[+−].+)$/.test(label));
    const all = steps ? shades(policy.moves, hold) : policy.moves.map((_, i) => KINDS[i % KINDS.length]);
    return classes(values, order, order.map((label) => all[policy.moves.indexOf(label)]), String);
  }
  if (colouring.moves) return paintChanges(values, hold);
  const known = [...new Set(values.filter(isNumber))].sort((a, b) => a - b), [low, high] = [known[0] ?? 0, known.at(-1) ?? 0];
  const colour = (v) => mix(LOW, HIGH, (v - low) / (high - low || 1));
  if (known.length <= MOST_CLASSES) return classes(values, known, known.map(colour), shown);
  // Too many to name: steps of a scale.
  const step = (high - low) / (SCALE_STEPS - 1), middles = Array.from({ length: SCALE_STEPS }, (_, i) => low + i * step);
  const binned = values.map((v) => (isNumber(v) ? middles[Math.round((v - low) / step)] : v)), numbers = values.filter(isNumber);
  const mean = numbers.reduce((a, b) => a + b, 0) / numbers.length;
  return { ...classes(binned, middles, middles.map(colour), shown), range: [shown(low), shown(high)], mean: shown(mean, 3) };
}

// A rule may change replicas by any number: a class for holding, and up to four each way.
function paintChanges(values, hold) {
  const changes = values.map((v) => changeOf(v)), most = Math.max(1, ...changes.map((c) => Math.abs(c ?? 0)));
  const edges = EDGES.find((list) => most < 2.5 * list.at(-1)) ?? [1, ...[20, 8, 3].map((part) => niceAbove(most / part))];
  const rank = (c) => edges.findLastIndex((edge) => Math.abs(c) >= edge);
  const kinds = values.map((v, i) => (changes[i] === null ? v : changes[i] === 0 ? "hold" : `${Math.sign(changes[i]) * (rank(changes[i]) + 1)}`));
  const label = (sign, i) => {
    const [from, to] = [edges[i], (edges[i + 1] ?? most + 1) - 1];
    return from === to ? `${sign}${from}` : `${sign}${from} to ${sign}${Math.max(from, to)}`;
  };
  const all = edges.map((_, i) => i), order = [...all.map((i) => `${-i - 1}`).reverse(), "hold", ...all.map((i) => `${i + 1}`)];
  const names = new Map([["hold", "hold"], ...all.flatMap((i) => [[`${-i - 1}`, label("−", i)], [`${i + 1}`, label("+", i)]])]);
  const present = order.filter((kind) => kinds.includes(kind));
  const colour = (kind) => (kind === "hold" ? hold : (kind < 0 ? FEWER : MORE)[Math.abs(kind) - 1]);
  return classes(kinds, present, present.map(colour), (kind) => names.get(kind));
}

function classes(values, order, colours, text) {
  const entries = order.map((value, i) => ({ label: text(value), colour: colours[i], count: 0 })), at = new Map(order.map((value, i) => [value, i]));
  const cells = values.map((value) => {
    if (!at.has(value)) at.set(value, entries.push({ label: value === null ? "nothing" : String(value), colour: BROKEN, count: 0 }) - 1);
    const i = at.get(value);
    entries[i].count++;
    return i;
  });
  return { cells, entries: entries.map(({ label, colour, count }) => ({ label, colour, share: count / values.length })) };
}
