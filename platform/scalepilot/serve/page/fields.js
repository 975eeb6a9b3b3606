// One slider and one number for each quantity; the numbers are the truth, the sliders a handle on them.
import { byId, isNumber, make, shown, withUnit } from "./dom.js";
import { canFollow, everyQuantity, follow, quantities } from "./quantities.js";

// The largest float32, not a bound that tells anything.
const UNBOUNDED = 1e30;

export class Fields {
  #rows = new Map();
  #changed;
  constructor(changed) {
    this.#changed = changed;
    byId("reset").addEventListener("click", () => { this.set(this.example); this.#changed(); });
  }

  show(fields, example) {
    // Policies of one kind are compared on one observation.
    const kept = Object.keys(this.example ?? {}).join("\n") === Object.keys(example).join("\n");
    this.observation = kept ? { ...example, ...this.observation } : { ...example };
    this.example = example;
    this.list = quantities(fields, example);
    this.#rows = new Map();
    byId("follow-line").hidden = !canFollow(fields);
    byId("fields").replaceChildren(...this.list.map((quantity) => this.#block(quantity)));
    this.#refresh();
  }

  set(values) {
    Object.assign(this.observation, values);
    this.#refresh();
    this.problems([]);
  }
  // `value` null: the field is left out, and the server says what is missing.
  move(quantity, value) {
    if (value === null) for (const name of quantity.members) delete this.observation[name];
    else quantity.set(this.observation, value);
    if (byId("follow").checked && value !== null) follow(this.observation, quantity.members);
    this.#refresh(quantity);
    this.#changed();
  }

  moveAll(moves) {
    for (const [quantity, value] of moves) quantity.set(this.observation, value);
    if (byId("follow").checked) follow(this.observation, moves.flatMap(([quantity]) => quantity.members));
    this.#refresh();
    this.#changed();
  }

  // In the order of the fields, whatever was left out meanwhile.
  ordered() {
    return Object.fromEntries(Object.keys(this.example).filter((name) => name in this.observation).map((name) => [name, this.observation[name]]));
  }

  // Each at its field; those of none are returned.
  problems(found) {
    for (const { problem, number, slider } of this.#rows.values()) {
      problem.hidden = true;
      number.removeAttribute("aria-invalid");
      slider.removeAttribute("aria-invalid");
    }
    return found.filter(({ field, problem }) => {
      const row = this.#rows.get(field);
      if (!row) return true;
      row.problem.textContent = problem;
      row.problem.hidden = false;
      row.number.setAttribute("aria-invalid", "true");
      row.slider.setAttribute("aria-invalid", "true");
      const folded = row.node.closest("details");
      if (folded) folded.open = true;
      return false;
    });
  }

  #block(quantity) {
    const row = this.#row(quantity);
    if (!quantity.children) return row;
    const inner = make("div", { class: "members" }, ...quantity.children.map((child) => this.#row(child)));
    return make("div", { class: "group", role: "group", "aria-label": quantity.label }, row,
      make("details", {}, make("summary", {}, `${quantity.children.length} single values`), inner));
  }

  #row(quantity) {
    const id = `field-${this.#rows.size}`, { bounds, unit } = quantity;
    const slider = make("input", { type: "range", min: 0, step: 1, "aria-labelledby": `${id}-name` });
    const number = make("input", { type: "number", id, step: "any", inputmode: "decimal", "aria-describedby": `${id}-about ${id}-problem` });
    const problem = make("p", { class: "problem", id: `${id}-problem`, hidden: "" });
    const allowed = bounds.high - bounds.low > UNBOUNDED ? "" : `${shown(bounds.low)} to ${withUnit(bounds.high, unit)}`;
    const about = make("p", { class: "about", id: `${id}-about` }, [quantity.description, allowed].filter(Boolean).join(" · "));
    const unitNode = make("span", { class: "unit" }, unit && unit !== "1" ? unit : "");
    const node = make("div", { class: "field", "data-field": quantity.key },
      make("label", { for: id, id: `${id}-name` }, quantity.label), make("span", { class: "value" }, number, unitNode), slider, about, problem);
    const row = { node, slider, number, problem, quantity, scale: quantity.scale };
    slider.addEventListener("input", () => this.move(quantity, row.scale.value(Number(slider.value))));
    number.addEventListener("input", () => this.move(quantity, isNumber(number.valueAsNumber) ? number.valueAsNumber : null));
    this.#rows.set(quantity.key, row);
    return node;
  }

  #refresh(moved) {
    for (const row of this.#rows.values()) {
      const { quantity, slider, number } = row, value = quantity.get(this.observation);
      if (!isNumber(value)) {
        // Whoever is typing a number is not interrupted.
        if (document.activeElement !== number) number.value = "";
        continue;
      }
      row.scale = quantity.scale = quantity.scale.reaching(value, quantity.bounds);
      slider.max = row.scale.steps;
      if (!(moved === quantity && document.activeElement === slider)) slider.value = row.scale.position(value);
      slider.setAttribute("aria-valuetext", withUnit(value, quantity.unit));
      if (document.activeElement !== number || moved !== quantity) number.value = value;
    }
  }

  get axes() { return everyQuantity(this.list); }
}
