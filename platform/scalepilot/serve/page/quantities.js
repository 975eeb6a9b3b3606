// What can be moved: a field, numbered fields together, or the hour of the week; each with a scale worth dragging over.
import { niceAbove } from "./dom.js";

// Wider bounds are those of a number format, not of a quantity.
const WIDEST = 1e5;
const LOGARITHMIC_FROM = 100;
const POSITIONS = 400;
const COUNTED = ["replicas", "requests", "tasks", "pods", "instances"];
const NUMBERED = "observation_";
const RATES = /^request_rate_rps_\d+$/;

function range(field, fields, example) {
  if (field.high - field.low < WIDEST) return [field.low, field.high];
  const alike = fields.filter((f) => f.unit === field.unit).map((f) => Math.abs(example[f.name]));
  const top = niceAbove(10 * (Math.max(...alike) || 1));
  return [Math.max(field.low, -top), Math.min(field.high, top)];
}

// Position 0 … steps of a slider ↔ value; far ranges with a small start are stretched where the start is.
export class Scale {
  constructor(low, high, { whole = false, start = low } = {}) {
    Object.assign(this, { low, high, whole, start });
    const span = high - low;
    const stretched = low >= 0 && span > 0 && (start > low ? span / (start - low) >= LOGARITHMIC_FROM : span > LOGARITHMIC_FROM);
    this.unitStep = stretched ? (start - low || span / 1000) : null;
    this.steps = whole && !stretched ? span : POSITIONS;
  }
  value(position) {
    const { low, high, unitStep } = this, share = position / this.steps;
    if (share >= 1) return high;
    const value = unitStep ? low + unitStep * Math.expm1(share * Math.log1p((high - low) / unitStep)) : low + share * (high - low);
    if (this.whole) return Math.round(value);
    return Number(value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(unitStep ? Math.max(value, unitStep / 10) : high - low || 1)))));
  }
  position(value) {
    const { low, high, unitStep } = this, inside = Math.min(Math.max(value, low), high);
    const share = unitStep ? Math.log1p((inside - low) / unitStep) / Math.log1p((high - low) / unitStep) : (inside - low) / (high - low || 1);
    return Math.round(share * this.steps);
  }
  reaching(value, field) {
    if ((value >= this.low && value <= this.high) || value < field.low || value > field.high) return this;
    const high = value > this.high ? Math.min(field.high, niceAbove(value)) : this.high;
    return new Scale(value < this.low ? Math.max(field.low, -niceAbove(-value)) : this.low, high, { whole: this.whole, start: this.start });
  }
}

function single(field, fields, example) {
  const [low, high] = range(field, fields, example), start = example[field.name];
  const counted = COUNTED.includes(field.unit) || (low >= 0 && high - low >= 2 && high - low <= 1000);
  const whole = counted && [low, high, start].every(Number.isInteger);
  // Gymnasium's numbered fields are known by their meaning.
  const [label, description] = field.name.startsWith(NUMBERED) && field.description ? [field.description, field.name] : [field.name, field.description];
  return {
    key: field.name, label, unit: field.unit, description, bounds: field, members: [field.name],
    scale: new Scale(low, high, { whole, start }),
    get: (observation) => observation[field.name],
    set: (observation, value) => { observation[field.name] = value; },
  };
}

function family(stem, children) {
  const [first] = children, members = children.map((child) => child.key);
  return {
    ...first, key: `${stem} (all)`, label: `${stem} (all)`, members, children,
    description: `sets all ${members.length}; shows the first`,
    get: (observation) => observation[members[0]],
    set: (observation, value) => { for (const name of members) observation[name] = value; },
  };
}

// Sliders over sin and cos of the time: [period in the slider's unit, name of the fields] of each wave it sets.
const CLOCKS = {
  "clock (hour of the week)": {
    label: "hour of the week", unit: "h", description: "hours since Monday 0:00 UTC; sets all four",
    high: 168, start: 12, waves: [[24, "day"], [168, "week"]],
  },
  "clock (minute of the hour)": { label: "minute of the hour", unit: "min", description: "sets both", high: 60, start: 0, waves: [[60, "hour"]] },
};

const membersOf = (clock) => clock.waves.flatMap(([, name]) => [`clock_${name}_sin`, `clock_${name}_cos`]);

function timeOf(key, children) {
  const { label, unit, description, high, start, waves } = CLOCKS[key];
  const [longest, shown] = waves.at(-1);
  const share = (sin, cos) => (Math.atan2(sin, cos) / (2 * Math.PI) + 1) % 1;
  return {
    key, label, unit, description,
    bounds: { low: 0, high }, members: membersOf(CLOCKS[key]), children, scale: new Scale(0, high, { whole: true, start }),
    get: (o) => Math.round(longest * share(o[`clock_${shown}_sin`], o[`clock_${shown}_cos`])) % high,
    set: (o, value) => {
      for (const [period, name] of waves) {
        const turn = (2 * Math.PI * value) / period;
        o[`clock_${name}_sin`] = Number(Math.sin(turn).toFixed(6));
        o[`clock_${name}_cos`] = Number(Math.cos(turn).toFixed(6));
      }
    },
  };
}

// In the order of the fields; children stand in their group.
export function quantities(fields, example) {
  const singles = fields.map((field) => single(field, fields, example));
  const stems = new Map();
  for (const quantity of singles) {
    const clock = Object.keys(CLOCKS).find((key) => membersOf(CLOCKS[key]).includes(quantity.key));
    const stem = clock ?? /^(.+)_\d+$/.exec(quantity.key)?.[1];
    if (stem) stems.set(stem, [...(stems.get(stem) ?? []), quantity]);
  }
  const grouped = new Map();
  for (const [stem, children] of stems) {
    const clock = CLOCKS[stem];
    if (clock ? children.length < membersOf(clock).length : children.length < 2 || !alike(children)) continue;
    const group = clock ? timeOf(stem, children) : family(stem, children);
    for (const child of children) grouped.set(child.key, group);
  }
  return [...new Set(singles.map((quantity) => grouped.get(quantity.key) ?? quantity))];
}
// Gymnasium numbers fields that have nothing in common: observation_0 may be an angle, observation_1 a speed.
function alike(children) {
  const [{ key, unit, bounds }] = children;
  return !key.startsWith(NUMBERED) && children.every((c) => c.unit === unit && c.bounds.low === bounds.low && c.bounds.high === bounds.high);
}

export const everyQuantity = (list) => list.flatMap((quantity) => [quantity, ...(quantity.children ?? [])]);

// What follows from others that were moved: the windowed mean of a steady rate, the utilisation of the ready replicas.
export function follow(observation, moved) {
  const rates = Object.keys(observation).filter((name) => RATES.test(name)), followed = [];
  const set = (name, value) => {
    if (name in observation && !moved.includes(name)) {
      observation[name] = Number(value.toPrecision(6));
      followed.push(name);
    }
  };
  const { request_rate_rps_0: rate, ready_replicas: ready, replica_capacity_rps: capacity } = observation;
  if (rates.length && rates.every((name) => moved.includes(name))) set("request_rate_mean_rps", rate);
  if ([rate, ready, capacity].every(Number.isFinite) && ["request_rate_rps_0", "ready_replicas"].some((name) => moved.includes(name)))
    set("cpu_utilisation", Math.min(1, Math.max(0, rate / Math.max(ready * capacity, 1e-9))));
  return followed;
}
export const canFollow = (fields) => fields.some((f) => RATES.test(f.name)) && fields.some((f) => f.name === "ready_replicas");
