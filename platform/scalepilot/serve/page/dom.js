// Elements, numbers and colours. Every text goes in as a text node: names and descriptions are never markup.
export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export const isNumber = (x) => typeof x === "number" && Number.isFinite(x);
export const isObject = (x) => typeof x === "object" && x !== null && !Array.isArray(x);

export function shown(value, digits = 4) {
  if (value === 0) return "0";
  if (Math.abs(value) >= 1e9 || Math.abs(value) < 1e-4) return value.toExponential(2).replace("-", "−");
  return value.toLocaleString("en", { maximumSignificantDigits: Math.max(digits, Math.floor(Math.log10(Math.abs(value))) + 1) }).replace("-", "−");
}
export const percent = (share) => {
  const value = 100 * share;
  return `${value > 0 && value < 0.1 ? "< 0.1" : fixed(value, value < 10 && value > 0 ? 1 : 0)} %`;
};
export const fixed = (value, digits) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");
// "share" and "1" are no units a person says.
export const withUnit = (value, unit) => (unit && unit !== "1" && unit !== "share" ? `${shown(value)} ${unit}` : shown(value));

export function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((m) => m * power >= value * (1 - 1e-9)) * power;
}

export function ticks(low, high, wanted) {
  const step = niceAbove((high - low) / wanted || 1), found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

const parts = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
export function mix(from, to, share) {
  const [a, b] = [parts(from), parts(to)];
  return "#" + a.map((x, i) => Math.round(x + (b[i] - x) * share).toString(16).padStart(2, "0")).join("");
}
export function cssColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
