"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const scrubber = document.getElementById("scrubber"), clock = document.getElementById("clock"), play = document.getElementById("play");
const NAMESPACE = "http://www.w3.org/2000/svg";
// As wide as the screen: letters stay readable on a phone.
const WIDTH = Math.max(340, Math.min(960, document.documentElement.clientWidth - 32)), LEFT = 52, RIGHT = 12;
const cursors = [];

function element(name, attributes, parent, text) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

function html(name, className, parent, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

// On a phone each figure stands beside the name of its column.
function labelled(cell, name) {
  cell.dataset.label = name;
  return cell;
}

const across = (i) => LEFT + (WIDTH - LEFT - RIGHT) * i / Math.max(1, data.steps.length - 1);

function drawChart(chart) {
  const height = chart.height, top = 26, bottom = height - 8;
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": chart.title }, document.getElementById("charts"));
  element("text", { x: LEFT, y: 15, "font-weight": 600 }, svg, chart.title);
  for (const share of [0, 0.5, 1]) {
    const y = bottom - (bottom - top) * share;
    element("path", { class: "grid", d: `M${LEFT} ${y}H${WIDTH - RIGHT}` }, svg);
    element("text", { class: "muted", x: LEFT - 6, y: y + 4, "text-anchor": "end" }, svg, (chart.high * share).toLocaleString("en", { maximumSignificantDigits: 3 }));
  }
  for (const line of chart.lines) {
    const points = line.values.map((v, i) => `${across(i).toFixed(1)},${(bottom - (bottom - top) * Math.min(1, v / chart.high)).toFixed(1)}`);
    element("polyline", { class: line.style, points: points.join(" ") }, svg);
  }
  cursors.push(element("path", { class: "cursor" }, svg));
  cursors[cursors.length - 1].bottom = bottom;
}

const rows = data.lanes.map((lane, i) => {
  const row = html("tr", "", document.querySelector("#lanes tbody"));
  const name = html("td", "", row);
  html("span", `dot lane-${i % 5}`, name);
  name.append(lane.name);
  return [...lane.cells.map((_, k) => labelled(html("td", "number", row), data.headings[k + 1])), html("td", "", row)];
});
const images = data.lanes.filter((lane) => lane.pictures).map((lane) => {
  const figure = html("figure", "", document.getElementById("pictures"));
  html("figcaption", "", figure, lane.name);
  const image = html("img", "", figure);
  image.alt = lane.name;
  return image;
});
data.charts.forEach(drawChart);

function show() {
  const at = Number(scrubber.value);
  clock.textContent = data.clock[at];
  for (const cursor of cursors) cursor.setAttribute("d", `M${across(at)} 22V${cursor.bottom}`);
  data.lanes.forEach((lane, i) => {
    lane.cells.forEach((column, k) => { rows[i][k].textContent = column[at]; });
    rows[i][lane.cells.length].textContent = lane.reasons[at];
    if (lane.pictures) images[i].src = lane.pictures[at];
  });
}

let timer = null;
function stop() { clearInterval(timer); timer = null; play.textContent = "Play"; }
play.addEventListener("click", () => {
  if (timer) return stop();
  if (Number(scrubber.value) >= data.steps.length - 1) scrubber.value = 0;
  play.textContent = "Pause";
  timer = setInterval(() => {
    scrubber.value = Number(scrubber.value) + 1;
    show();
    if (Number(scrubber.value) >= data.steps.length - 1) stop();
  }, data.interval_milliseconds);
});
scrubber.addEventListener("input", () => { if (timer) stop(); show(); });
show();
