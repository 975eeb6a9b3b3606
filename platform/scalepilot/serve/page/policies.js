// The table of policies: a row a name, with its versions to choose from.
import { byId, isNumber, make, percent } from "./dom.js";

export const referenceOf = (policy) => `${policy.name}@${policy.version}`;

function routeText(route) {
  const parts = [];
  if (route?.canary) parts.push(`${route.canary.policy} (canary${isNumber(route.canary.share) ? `, ${percent(route.canary.share)}` : ""})`);
  if (route?.shadow) parts.push(`${route.shadow} (shadow)`);
  return parts.join(", ") || "–";
}

export class Policies {
  #choose;
  constructor(choose) { this.#choose = choose; }

  // Keeps the choice where it still exists, else takes what `wanted` names, else the first default.
  show(list, wanted) {
    this.list = list;
    const find = (reference) => list.find((p) => referenceOf(p) === reference) ?? list.find((p) => p.name === reference && p.default);
    this.chosen = find(wanted) ?? list.find((p) => p.default) ?? list[0] ?? null;
    this.#draw();
    return this.chosen;
  }

  #draw() {
    const names = [...new Set(this.list.map((p) => p.name))];
    const focused = document.activeElement?.id;
    byId("policies").classList.toggle("plain", !this.list.some((p) => p.route?.canary || p.route?.shadow));
    byId("policies").tBodies[0].replaceChildren(...names.map((name, i) => this.#row(name, i)));
    if (focused?.startsWith("policy-")) byId(focused)?.focus();
  }

  #row(name, i) {
    const versions = this.list.filter((p) => p.name === name), fallback = versions.find((p) => p.default) ?? versions[0];
    const isChosen = this.chosen?.name === name, shownVersion = isChosen ? this.chosen : fallback;
    const radio = make("input", { type: "radio", name: "policy", id: `policy-${i}` });
    radio.checked = isChosen;
    radio.addEventListener("change", () => this.#pick(fallback));
    const select = make("select", { "aria-label": `Version of ${name}`, id: `policy-${i}-version` },
      ...versions.map((p) => make("option", { value: p.version }, p.version + (p.default ? " (default)" : ""))));
    select.value = shownVersion.version;
    select.addEventListener("change", () => this.#pick(versions.find((p) => p.version === select.value)));
    const kind = `${shownVersion.kind}${shownVersion.state ? ", remembers" : ""}`;
    return make("tr", isChosen ? { class: "best" } : {},
      make("th", { scope: "row" }, make("label", { class: "check" }, radio, make("span", { class: "name" }, name))),
      make("td", { "data-label": "Version" }, versions.length > 1 ? select : shownVersion.version),
      make("td", { "data-label": "Kind" }, kind),
      make("td", { "data-label": "Environment" }, shownVersion.env_id),
      make("td", { class: "routes", "data-label": "Requests also go to" }, routeText(shownVersion.route)));
  }

  #pick(policy) {
    this.chosen = policy;
    this.#draw();
    this.#choose(policy);
  }
}
