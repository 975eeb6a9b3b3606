// What the policy does over two quantities: a grid of decisions on a canvas, with the present observation as a cross.
import { ApiError, whenQuiet } from "./api.js";
import { byId, cssColour, make, percent, shown, withUnit } from "./dom.js";
import { coarser, colourings, gridRequest, paint } from "./grid.js";
import { place, Plot } from "./plot.js";

const PAUSE_MILLISECONDS = 250;
const RETRY_MILLISECONDS = 3000;
const PREFERRED = ["request_rate_rps (all)", "ready_replicas"];
const known = (list, value) => list.some((entry) => entry.key === value);
const apart = (a, b) => !a.members.some((name) => b.members.includes(name));

export class ActionMap {
  #ask; #go; #grid = null; #painting = null; #cursor = null; #plot;
  constructor(ask, go) {
    this.#ask = ask;
    this.#go = go;
    this.#plot = new Plot(byId("map"), byId("map-plot"));
    this.refresh = whenQuiet(PAUSE_MILLISECONDS, (signal) => this.#load(signal));
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
    this.refresh.cancel();
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
    Object.assign(this.#plot, { grid: this.#grid, painting: this.#painting });
    this.#plot.draw(this.#grid ? this.#here() : null, this.#cursor);
  }
  #here() { const { x, y } = this.#grid, { observation } = this.fields; return [x.get(observation), y.get(observation)]; }

  #point(event) {
    if (!this.#grid) return;
    this.#inspect(this.#plot.cellAt(event.offsetX, event.offsetY), event);
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (!this.#grid) return;
    const { across, up } = this.#grid;
    if (moves[event.key]) {
      const here = this.#here();
      const from = this.#cursor ?? { column: Math.round(place(across, here[0])), row: Math.round(place(up, here[1])) };
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
