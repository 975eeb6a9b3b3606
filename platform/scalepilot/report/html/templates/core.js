// What all charts share: elements, scales, number formats, frames with axes, one tooltip.
const data = JSON.parse(document.getElementById("data").textContent);

// Every text goes in as a text node: names are never markup.
function make(namespace, tag, attributes = {}, ...children) {
  const node = namespace ? document.createElementNS(namespace, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
const svg = (tag, attributes, ...children) => make("http://www.w3.org/2000/svg", tag, attributes, ...children);
const html = (tag, attributes, ...children) => make(null, tag, attributes, ...children);
const known = (x) => x !== null && x !== undefined;

// Scales: linear or logarithmic, with round ticks.
function scale(low, high, from, to, logarithmic = false) {
  const map = logarithmic ? Math.log10 : (x) => x;
  const first = map(low), span = map(high) - first || 1;
  const at = (x) => from + ((map(logarithmic ? Math.max(x, low) : x) - first) / span) * (to - from);
  at.low = low; at.high = high; at.logarithmic = logarithmic;
  return at;
}
function ticks(at, wanted) {
  if (at.values) return at.values;
  const { low, high } = at, found = [];
  if (at.logarithmic) {
    const mantissas = Math.log10(high / low) > 2.5 ? [1] : Math.log10(high / low) > 1.2 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const m of mantissas) found.push(m * 10 ** power);
    return found.filter((x) => x >= low * 0.999 && x <= high * 1.001);
  }
  const rough = (high - low) / wanted || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((m) => m * power >= rough) * power;
  for (let x = Math.ceil(low / step - 1e-9) * step; x <= high + step * 1e-9; x += step) found.push(Math.abs(x) < step / 1e6 ? 0 : x);
  return found;
}
function padded(values, share, floor = -Infinity) {
  const low = Math.min(...values), high = Math.max(...values), pad = (high - low || Math.abs(high) || 1) * share;
  return [Math.max(low - pad, floor), high + pad];
}
const plain = (x) => (Math.abs(x) >= 10000 ? Number(x.toPrecision(4)).toLocaleString("en") : String(Number(x.toPrecision(3))));
const shown = (x, digits) => (known(x) ? x.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }) : "–");
const steps = (x) => (x >= 1e6 ? plain(x / 1e6) + " M" : x >= 1e3 ? plain(x / 1e3) + " k" : plain(x));

function frame(host, height, margin, label) {
  const width = Math.max(260, Math.round(host.clientWidth || 640));
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  host.replaceChildren(root);
  return { root, left: margin.left, right: width - margin.right, top: margin.top, bottom: height - margin.bottom, width, height };
}
function axisY(f, y, format, title, wanted = 5) {
  for (const t of ticks(y, wanted)) {
    f.root.append(svg("line", { class: "grid", x1: f.left, x2: f.right, y1: y(t), y2: y(t) }));
    f.root.append(svg("text", { x: f.left - 8, y: y(t) + 4, "text-anchor": "end" }, format(t)));
  }
  f.root.append(svg("text", { x: 0, y: f.top - 10 }, title));
}
function axisX(f, x, format, title, bottom = f.bottom) {
  f.root.append(svg("line", { class: "axis", x1: f.left, x2: f.right, y1: bottom, y2: bottom }));
  for (const t of ticks(x, Math.max(3, Math.floor((f.right - f.left) / 90))))
    f.root.append(svg("text", { x: x(t), y: bottom + 18, "text-anchor": "middle" }, format(t)));
  f.root.append(svg("text", { x: f.right, y: bottom + 36, "text-anchor": "end" }, title));
}
// The same words wherever a pointer rests, a finger taps or the keyboard's focus is.
const tip = document.getElementById("tip");
function showTip(host, px, py, lines) {
  tip.replaceChildren(...lines.map((line, i) => html("p", i ? {} : { class: "name" }, line)));
  tip.hidden = false;
  const box = host.getBoundingClientRect(), room = document.documentElement.clientWidth - tip.offsetWidth - 6;
  const x = box.left + px + 14 > room ? box.left + px - tip.offsetWidth - 14 : box.left + px + 14;
  tip.style.left = `${Math.max(6, Math.min(x, room)) + scrollX}px`;
  tip.style.top = `${box.top + py - tip.offsetHeight - 10 + scrollY}px`;
}
const hideTip = () => { tip.hidden = true; };
const local = (host, event) => {
  const box = host.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
const shortened = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
const path = (points) => (points.length ? "M" + points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join("L") : "");
