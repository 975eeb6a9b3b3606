// What the policy does over two quantities: a grid of decisions on a canvas, with the present observation as a cross.
import { ApiError, latest } from "./api.js";
import { byId, cssColour, make, percent, shown, ticks, withUnit } from "./dom.js";
import { coarser, colourings, gridRequest, paint } from "./grid.js";

const MARGIN = { left: 62, right: 14, top: 12, bottom: 46 };
const PAUSE_MILLISECONDS = 250;
const RETRY_MILLISECONDS = 3000;
const TICK_PIXELS = 64;
const LABEL_CELLS = 2;
const PREFERRED = ["request_rate_rps (all)", "ready_replicas"];
const known = (list, value) => list.some((entry) => entry.key === value);
const apart = (a, b) => !a.members.some((name) => b.members.includes(name));

// Where a value lies among the grid's points, in points.
function place(values, value) {
  const last = values.length - 1;
  let i = values.findIndex((v) => v > value);
  if (i < 0) i = last;
  i = Math.max(1, i);
  return last ? Math.min(last, Math.max(0, i - 1 + (value - values[i - 1]) / (values[i] - values[i - 1] || 1))) : 0;
}

export class ActionMap {
  #ask; #go; #grid = null; #painting = null; #cursor = null; #shape = null;
  constructor(ask, go) {
    this.#ask = ask;
    this.#go = go;
    this.refresh = latest(PAUSE_MILLISECONDS, (signal) => this.#load(signal));
    for (const select of [byId("map-x"), byId("map-y")]) select.addEventListener("change", () => this.#pick(select));
    byId("map-colour").addEventListener("change", () => this.#paint());
    const canvas = byId("map");
    canvas.addEventListener("pointermove", (event) => this.#point(event));
    canvas.addEventListener("pointerleave", () => this.#inspect(null));
    canvas.addEventListener("blur", () => this.#inspect(null));
    canvas.addEventListener("click", (event) => { this.#point(event); this.#enter(); });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.draw()).observe(byId("map-plot"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
  }

  show(policy, fields) {
    Object.assign(this, { policy, fields });
    this.axes = fields.axes.filter(({ scale }) => scale.high > scale.low);
    this.#grid = this.#painting = null;
    byId("map-section").hidden = !this.axes.some((a) => this.axes.some((b) => apart(a, b)));
    const options = () => this.axes.map((axis) => make("option", { value: axis.key }, axis.label));
    byId("map-x").replaceChildren(...options());
    byId("map-y").replaceChildren(...options());
    const [x, y] = PREFERRED.every((key) => known(this.axes, key)) ? PREFERRED : this.#firstTwo();
    byId("map-x").value = x;
    byId("map-y").value = y;
    this.colourings = colourings(policy);
    byId("map-colour").replaceChildren(...this.colourings.map(({ key, label }) => make("option", { value: key }, label)));
    this.draw();
    this.say();
  }

  #firstTwo() {
    const first = this.axes[0], second = this.axes.find((axis) => first && apart(axis, first));
    return [first?.key ?? "", second?.key ?? ""];
  }

  // The same field twice is no map: the other one makes room.
  #pick(select) {
    const other = select.id === "map-x" ? byId("map-y") : byId("map-x"), { x, y } = this.#chosen();
    if (!apart(x, y)) other.value = this.axes.find((axis) => apart(axis, this.#axis(select.value))).key;
    this.refresh();
  }
  #axis(key) { return this.axes.find((axis) => axis.key === key); }
  #chosen() { return { x: this.#axis(byId("map-x").value), y: this.#axis(byId("map-y").value) }; }

  async #load(signal) {
    const { x, y } = this.#chosen();
    if (byId("map-section").hidden) return;
    const base = this.fields.ordered(), following = byId("follow").checked && !byId("follow-line").hidden;
    let most;
    while (most !== null) {
      const request = gridRequest(base, x, y, following, most);
      try {
        const answers = await this.#ask(request.body, signal);
        this.#grid = { ...request, x, y, answers };
        this.#paint();
        return;
      } catch (error) {
        if (error.name === "AbortError") return;
        // A server with a smaller limit gets a coarser grid.
        most = error instanceof ApiError && error.status === 413 ? coarser(request.most) : null;
        if (most === null) this.say(`No map: ${error.message}`);
        if (error.passing) setTimeout(this.refresh, RETRY_MILLISECONDS);
      }
    }
  }

  #paint() {
    if (!this.#grid) return;
    const colouring = this.colourings.find(({ key }) => key === byId("map-colour").value);
    this.#painting = paint(this.#grid.answers, colouring, this.policy, cssColour("--hold"));
    this.#painting.label = colouring.label;
    this.#showLegend();
    this.say();
    this.draw();
  }

  #showLegend() {
    const { entries, range, label } = this.#painting;
    if (range) {
      const bar = make("span", { class: "gradient" });
      bar.style.background = `linear-gradient(to right, ${entries.map(({ colour }) => colour).join(", ")})`;
      byId("legend").replaceChildren(make("p", { class: "legend-title" }, label), bar, make("p", { class: "ends" }, make("span", {}, range[0]), make("span", {}, range[1])));
      return;
    }
    byId("legend").replaceChildren(make("p", { class: "legend-title" }, label), ...entries.map((entry) => {
      const key = make("span", { class: "key" });
      key.style.background = entry.colour;
      return make("p", { class: "entry" }, key, make("span", {}, entry.label), make("span", { class: "share" }, percent(entry.share)));
    }));
  }

  // The map in words.
  say(problem) {
    const grid = this.#grid, canvas = byId("map");
    byId("map-summary").textContent = problem ?? (grid ? this.#words() : "The map is on its way.");
    canvas.setAttribute("aria-label", grid ? `${this.policy.name}: ${this.#painting.label} over ${grid.x.label} and ${grid.y.label}` : "State to action map");
  }
  #words() {
    const { x, y, across, up } = this.#grid, { entries, range, mean, label } = this.#painting;
    const span = ({ label: name, unit }, values) => `${name} from ${shown(values[0])} to ${withUnit(values.at(-1), unit)}`;
    const what = range ? `${label} from ${range[0]} to ${range[1]}, ${mean} on average`
      : [...entries].sort((a, b) => b.share - a.share).map((entry) => `${entry.label} ${percent(entry.share)}`).join(", ");
    return `${span(x, across)} across, ${span(y, up)} up, ${across.length} × ${up.length} decisions: ${what}.${this.policy.state ? " Each without a memory." : ""}`;
  }

  draw() {
    const canvas = byId("map"), host = byId("map-plot"), width = host.clientWidth, height = Math.round(Math.min(0.72 * width, 470));
    if (!width) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.clearRect(0, 0, width, height);
    this.#shape = { left: MARGIN.left, top: MARGIN.top, width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
    if (!this.#grid) return;
    this.#drawCells(pen, ratio);
    this.#drawAxes(pen);
    this.#drawLabels(pen);
    this.#drawCross(pen);
    this.#drawCursor(pen);
  }

  #drawCells(pen, ratio) {
    const { left, top, width, height } = this.#shape, { across, up } = this.#grid, { cells, entries } = this.#painting;
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

  #x(value) { const { left, width } = this.#shape, { across } = this.#grid; return left + ((place(across, value) + 0.5) / across.length) * width; }
  #y(value) { const { top, height } = this.#shape, { up } = this.#grid; return top + height - ((place(up, value) + 0.5) / up.length) * height; }

  #drawAxes(pen) {
    const { left, top, width, height } = this.#shape, { x, y, across, up } = this.#grid;
    pen.font = '12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
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
    const { left, top, width, height } = this.#shape, { across, up } = this.#grid, { cells, entries, range } = this.#painting;
    if (range) return;
    const columns = across.length, depths = new Map();
    let inside = cells.map(() => true);
    for (let depth = 1; inside.some(Boolean); depth++) {
      inside.forEach((is, i) => { if (is) depths.set(cells[i], { depth, i }); });
      inside = inside.map((is, i) => is && [i % columns ? i - 1 : -1, (i + 1) % columns ? i + 1 : -1, i - columns, i + columns].every((j) => inside[j] && cells[j] === cells[i]));
    }
    pen.font = '600 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
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

  #drawCross(pen) {
    const { left, top, width, height } = this.#shape, { x, y } = this.#grid, { observation } = this.fields;
    const values = [x.get(observation), y.get(observation)];
    if (!values.every(Number.isFinite)) return;
    const [px, py] = [this.#x(values[0]), this.#y(values[1])];
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

  #drawCursor(pen) {
    if (!this.#cursor) return;
    const { left, top, width, height } = this.#shape, { across, up } = this.#grid, { column, row } = this.#cursor;
    pen.strokeStyle = "#111";
    pen.lineWidth = 1.5;
    pen.strokeRect(left + (column / across.length) * width, top + height - ((row + 1) / up.length) * height, width / across.length, height / up.length);
  }

  #point(event) {
    if (!this.#grid) return;
    const { left, top, width, height } = this.#shape, { across, up } = this.#grid;
    const column = Math.floor(((event.offsetX - left) / width) * across.length), row = Math.floor((1 - (event.offsetY - top) / height) * up.length);
    this.#inspect(column >= 0 && row >= 0 && column < across.length && row < up.length ? { column, row } : null, event);
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (!this.#grid) return;
    const { x, y, across, up } = this.#grid;
    if (moves[event.key]) {
      const { observation } = this.fields;
      const from = this.#cursor ?? { column: Math.round(place(across, x.get(observation))), row: Math.round(place(up, y.get(observation))) };
      const [right, above] = moves[event.key], inside = (at, count) => Math.min(count - 1, Math.max(0, at));
      this.#inspect({ column: inside(from.column + right, across.length), row: inside(from.row + above, up.length) });
    } else if (event.key === "Enter") this.#enter();
    else if (event.key === "Escape") this.#inspect(null);
    else return;
    event.preventDefault();
  }

  #enter() {
    if (!this.#cursor) return;
    const { x, y, across, up } = this.#grid;
    this.#go([[x, across[this.#cursor.column]], [y, up[this.#cursor.row]]]);
  }

  #inspect(cursor, event) {
    this.#cursor = cursor;
    const tip = byId("tip"), lines = cursor ? this.#lines(cursor) : [];
    byId("map-reading").textContent = lines.join(" · ");
    tip.hidden = !cursor || !event;
    if (!tip.hidden) {
      tip.replaceChildren(...lines.map((line, i) => make("p", i ? {} : { class: "name" }, line)));
      const room = document.documentElement.clientWidth - tip.offsetWidth - 6;
      const beside = event.clientX + 14 > room ? event.clientX - tip.offsetWidth - 14 : event.clientX + 14;
      tip.style.left = `${Math.max(6, Math.min(beside, room)) + scrollX}px`;
      tip.style.top = `${Math.max(6, event.clientY - tip.offsetHeight - 12) + scrollY}px`;
    }
    this.draw();
  }

  #lines({ column, row }) {
    const { x, y, across, up, answers } = this.#grid, answer = answers[row * across.length + column];
    const outcome = answer.desired_replicas !== undefined ? `${answer.move}: ${withUnit(answer.desired_replicas, "replicas")}`
      : answer.move ?? Object.entries(answer.action ?? {}).map(([name, value]) => `${name} ${value === null ? "–" : shown(value)}`).join(", ");
    const share = answer.probabilities?.[answer.move], value = answer.q_values?.[answer.move];
    return [
      answer.fallback === undefined ? outcome : `fallback: ${outcome}`,
      `${x.label} ${withUnit(across[column], x.unit)}`,
      `${y.label} ${withUnit(up[row], y.unit)}`,
      ...(share === undefined ? [] : [`probability ${percent(share)}`]),
      ...(value === undefined ? [] : [`Q-value ${shown(value, 5)}`]),
    ];
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
