// The last decisions: requests, replicas and late requests over time, and the mode of each.
import { make, niceAbove, percent, shown, ticks } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const GAP = 40, RIGHT = 8, STRIP = 10, AXIS = 22;
const CLOCK_STEPS = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

function drawn(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export const clockText = (seconds, withSeconds) =>
  new Date(1000 * seconds).toLocaleTimeString("en-GB", withSeconds ? {} : { hour: "2-digit", minute: "2-digit" });

// Steps: a decision holds until the next one. A gap where nothing is known, or nothing was decided for a while.
function steps(rows, column, x, y, floor, longest) {
  let path = "", open = false;
  rows.forEach((row, i) => {
    const value = row[column], next = rows[i + 1];
    const until = next && next.time - row.time <= longest ? next.time : row.time + longest / 3;
    if (value === null) { open = false; return; }
    const begin = x(row.time), end = x(until), at = y(value);
    if (floor === null) path += `${open ? "L" : "M"}${begin} ${at}L${end} ${at}`;
    else path += `M${begin} ${floor}V${at}H${end}V${floor}Z`;
    open = Boolean(next) && next.time - row.time <= longest;
  });
  return path;
}

// Returns what is under a place: (pixels from the left) → row.
export function drawPlot(host, rows, interval, span) {
  const width = Math.max(280, host.clientWidth), narrow = width < 600, left = narrow ? 46 : 50;
  const end = rows.at(-1).time + interval, begin = Math.max(rows[0].time, span ? end - span : 0);
  const seen = rows.filter((row) => row.time >= begin - interval);
  const x = (time) => Math.round(10 * (left + (Math.max(0, time - begin) / (end - begin || 1)) * (width - left - RIGHT))) / 10;
  const panes = [
    { name: "requests a second", height: narrow ? 70 : 90, lines: [["rate_rps", "rate"]], lowest: 1, text: shown },
    { name: "replicas", height: narrow ? 150 : 200, lines: [["ready", "ready"], ["wanted", "wanted"], ["target", "target"]], lowest: 2, text: shown, whole: true },
    { name: "late requests", height: narrow ? 56 : 70, lines: [["late_share", "late"]], lowest: 0.01, highest: 1.04, text: percent },
  ];
  const svg = drawn("svg", { role: "img", "aria-label": "Requests a second, replicas, late requests and mode over time" });
  let top = 26;
  for (const pane of panes) {
    const values = seen.flatMap((row) => pane.lines.map(([column]) => row[column])).filter((value) => value !== null);
    const high = Math.min(pane.highest ?? Infinity, niceTop(Math.max(pane.lowest, ...values))), bottom = top + pane.height;
    const y = (value) => Math.round(10 * (bottom - (value / high) * pane.height)) / 10;
    svg.append(drawn("text", { x: 0, y: top - 13, class: "name" }, pane.name));
    for (const tick of ticks(0, high, pane.height / (narrow ? 30 : 40)).filter((tick) => pane.whole !== true || Number.isInteger(tick))) {
      svg.append(drawn("line", { x1: left, x2: width - RIGHT, y1: y(tick), y2: y(tick), class: tick ? "grid" : "axis" }));
      svg.append(drawn("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, pane.text(tick || 0)));
    }
    for (const [column, kind] of pane.lines) svg.append(drawn("path", { class: kind, d: steps(seen, column, x, y, kind === "ready" ? bottom : null, 3 * interval) }));
    top = bottom + GAP;
  }
  svg.append(drawn("text", { x: 0, y: top - 10, class: "name" }, "mode"));
  for (const { mode, from, until } of spells(seen, end, 3 * interval)) {
    svg.append(drawn("rect", { class: `strip m-${mode}`, x: x(from), y: top, width: Math.max(0.5, x(until) - x(from)), height: STRIP }));
  }
  top += STRIP;
  const step = CLOCK_STEPS.find((s) => (end - begin) / s <= (width - left) / (narrow ? 74 : 96)) ?? 86400;
  for (let time = Math.ceil(begin / step) * step; time <= end; time += step) {
    if (x(time) < left + 16 || x(time) > width - 24) continue;
    svg.append(drawn("line", { x1: x(time), x2: x(time), y1: top, y2: top + 4, class: "axis" }));
    svg.append(drawn("text", { x: x(time), y: top + 17, "text-anchor": "middle" }, clockText(time, step < 60)));
  }
  const cross = drawn("line", { class: "cross", y1: 26, y2: top, visibility: "hidden" });
  svg.append(cross);
  svg.setAttribute("viewBox", `0 0 ${width} ${top + AXIS}`);
  svg.setAttribute("height", top + AXIS);
  host.querySelector("svg")?.remove();
  host.prepend(svg);
  return (pixels) => {
    if (pixels === null) { cross.setAttribute("visibility", "hidden"); return null; }
    const time = begin + ((pixels - left) / (width - left - RIGHT)) * (end - begin);
    const row = seen.findLast((each) => each.time <= time) ?? seen[0];
    for (const name of ["x1", "x2"]) cross.setAttribute(name, x(row.time));
    cross.setAttribute("visibility", "visible");
    return row;
  };
}

// Times of the same mode without a gap.
function spells(rows, end, longest) {
  const found = [];
  rows.forEach((row, i) => {
    const until = Math.min(rows[i + 1]?.time ?? end, row.time + longest), last = found.at(-1);
    if (last?.mode === row.mode && last.until === row.time) last.until = until;
    else found.push({ mode: row.mode, from: row.time, until });
  });
  return found;
}

// A little above the highest, so that no line runs along the upper edge.
function niceTop(value) {
  const step = niceAbove(value / 4);
  return Math.ceil((1.02 * value) / step) * step;
}

export function keyOf(kind, text) {
  const sample = drawn("svg", { width: 22, height: 12, class: "live", "aria-hidden": "true" });
  sample.append(kind === "ready" ? drawn("rect", { x: 0, y: 1, width: 22, height: 10, class: "ready" }) : drawn("path", { class: kind, d: "M0 6H22" }));
  return make("span", {}, sample, text);
}
