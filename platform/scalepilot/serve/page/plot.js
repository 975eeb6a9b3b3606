// A grid of decisions on a canvas: cells, axes, names, and crosses.
import { cssColour, shown, ticks } from "./dom.js";

const MARGIN = { left: 62, right: 14, top: 12, bottom: 46 };
const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
const TICK_PIXELS = 64;
const LABEL_CELLS = 2;

// Where a value lies among the grid's points, in points.
export function place(values, value) {
  const last = values.length - 1;
  let i = values.findIndex((v) => v > value);
  if (i < 0) i = last;
  i = Math.max(1, i);
  return last ? Math.min(last, Math.max(0, i - 1 + (value - values[i - 1]) / (values[i] - values[i - 1] || 1))) : 0;
}

// grid: {x, y, across, up}; painting: {cells, entries, range}; both null before the first answer.
export class Plot {
  constructor(canvas, host) { Object.assign(this, { canvas, host, grid: null, painting: null }); }

  // here: [x, y] the present values; cursor: {column, row} or null.
  draw(here, cursor) {
    const width = this.host.clientWidth, height = Math.round(Math.min(0.72 * width, 470)), ratio = window.devicePixelRatio || 1;
    if (!width) return;
    this.canvas.style.height = `${height}px`;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.left = MARGIN.left;
    this.top = MARGIN.top;
    this.width = width - MARGIN.left - MARGIN.right;
    this.height = height - MARGIN.top - MARGIN.bottom;
    if (!this.grid) return;
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    this.#drawCells(pen, ratio);
    this.#drawAxes(pen);
    this.#drawLabels(pen);
    this.#drawCross(pen, here);
    if (cursor) this.#drawCursor(pen, cursor);
  }

  // The cell at a place on the canvas.
  cellAt(px, py) {
    const { across, up } = this.grid;
    const column = Math.floor(((px - this.left) / this.width) * across.length), row = Math.floor((1 - (py - this.top) / this.height) * up.length);
    return column >= 0 && row >= 0 && column < across.length && row < up.length ? { column, row } : null;
  }

  #drawCells(pen, ratio) {
    const { left, top, width, height } = this, { across, up } = this.grid, { cells, entries } = this.painting;
    // On whole device pixels, so that neighbours leave no seam.
    const snap = (at) => Math.round(at * ratio) / ratio;
    for (let row = 0; row < up.length; row++) {
      const upper = snap(top + height - ((row + 1) / up.length) * height), lower = snap(top + height - (row / up.length) * height);
      for (let column = 0; column < across.length; column++) {
        const from = snap(left + (column / across.length) * width), to = snap(left + ((column + 1) / across.length) * width);
        pen.fillStyle = entries[cells[row * across.length + column]].colour;
        pen.fillRect(from, upper, to - from, lower - upper);
      }
    }
  }

  #x(value) { const { left, width } = this, { across } = this.grid; return left + ((place(across, value) + 0.5) / across.length) * width; }
  #y(value) { const { top, height } = this, { up } = this.grid; return top + height - ((place(up, value) + 0.5) / up.length) * height; }

  #drawAxes(pen) {
    const { left, top, width, height } = this, { x, y, across, up } = this.grid;
    pen.font = FONT;
    pen.fillStyle = cssColour("--soft");
    pen.strokeStyle = cssColour("--line");
    pen.lineWidth = 1;
    pen.strokeRect(left - 0.5, top - 0.5, width + 1, height + 1);
    pen.textAlign = "center";
    for (const value of spaced(x.scale, across, (v) => this.#x(v), TICK_PIXELS)) pen.fillText(shown(value), this.#x(value), top + height + 17);
    pen.textAlign = "right";
    for (const value of spaced(y.scale, up, (v) => this.#y(v), TICK_PIXELS / 2)) pen.fillText(shown(value), left - 8, this.#y(value) + 4);
    pen.fillStyle = cssColour("--ink");
    pen.fillText(title(x), left + width, top + height + 37, width);
    pen.save();
    pen.translate(13, top);
    pen.rotate(-Math.PI / 2);
    pen.fillText(title(y), 0, 0, height);
    pen.restore();
  }

  // Each class named in the middle of its largest region: colours alone must not carry the meaning.
  #drawLabels(pen) {
    const { left, top, width, height } = this, { across, up } = this.grid, { cells, entries, range } = this.painting;
    if (range) return;
    const columns = across.length, depths = new Map();
    let inside = cells.map(() => true);
    for (let depth = 1; inside.some(Boolean); depth++) {
      inside.forEach((is, i) => { if (is) depths.set(cells[i], { depth, i }); });
      inside = inside.map((is, i) => is && [i % columns ? i - 1 : -1, (i + 1) % columns ? i + 1 : -1, i - columns, i + columns].every((j) => inside[j] && cells[j] === cells[i]));
    }
    pen.font = `600 ${FONT}`;
    pen.textAlign = "center";
    pen.lineWidth = 3;
    pen.lineJoin = "round";
    for (const [kind, { depth, i }] of depths) {
      if (depth <= LABEL_CELLS) continue;
      const at = [left + ((i % columns + 0.5) / columns) * width, top + height - ((Math.floor(i / columns) + 0.5) / up.length) * height + 5];
      pen.strokeStyle = "#fff";
      pen.fillStyle = "#111";
      pen.strokeText(entries[kind].label, ...at);
      pen.fillText(entries[kind].label, ...at);
    }
  }

  #drawCross(pen, here) {
    const { left, top, width, height } = this, [px, py] = [this.#x(here[0]), this.#y(here[1])];
    if (!here.every(Number.isFinite)) return;
    for (const [colour, line] of [["#fff", 2.5], ["#111", 1]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = line;
      pen.beginPath();
      for (const [a, b] of [[[left, py], [px - 7, py]], [[px + 7, py], [left + width, py]], [[px, top], [px, py - 7]], [[px, py + 7], [px, top + height]]]) {
        if (a[0] > b[0] || a[1] > b[1]) continue;
        pen.moveTo(...a);
        pen.lineTo(...b);
      }
      pen.moveTo(px + 7, py);
      pen.arc(px, py, 7, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  #drawCursor(pen, { column, row }) {
    const { left, top, width, height } = this, { across, up } = this.grid;
    pen.strokeStyle = "#111";
    pen.lineWidth = 1.5;
    pen.strokeRect(left + (column / across.length) * width, top + height - ((row + 1) / up.length) * height, width / across.length, height / up.length);
  }
}

const title = ({ label, unit }) => (unit && unit !== "1" ? `${label} (${unit})` : label);

function spaced(scale, values, at, pixels) {
  const [low, high] = [values[0], values.at(-1)], room = Math.abs(at(high) - at(low));
  if (!scale.unitStep) return ticks(low, high, Math.max(2, room / pixels));
  const found = [low];
  for (let power = Math.floor(Math.log10(scale.unitStep)); 10 ** power <= high; power++) {
    const value = 10 ** power;
    if (value > low && Math.abs(at(value) - at(found.at(-1))) >= pixels) found.push(value);
  }
  return found;
}
