// The request of the moment, to run elsewhere; a key is named, never written.
import { byId } from "./dom.js";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function curlText(url, body, withKey) {
  // An IPv6 address has brackets, which curl would take for a pattern.
  const lines = [`curl -sS ${url.includes("[") ? "--globoff " : ""}${quoted(url)}`, "-H 'Content-Type: application/json'"];
  if (withKey) lines.push('-H "X-API-Key: $KEY"');
  return [...lines, `-d ${quoted(JSON.stringify(body))}`].join(" \\\n  ");
}

// JSON is Python but for true, false and null.
function pythonText(value, indent = "") {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map((item) => pythonText(item, indent)).join(", ")}]`;
  const inner = indent + "    ";
  return `{\n${Object.entries(value).map(([key, item]) => `${inner}${JSON.stringify(key)}: ${pythonText(item, inner)},\n`).join("")}${indent}}`;
}

export function pythonCode(url, body, withKey) {
  const headers = `{"Content-Type": "application/json"${withKey ? ', "X-API-Key": os.environ["KEY"]' : ""}}`;
  return `import json
${withKey ? "import os\n" : ""}from urllib.request import Request, urlopen

body = ${pythonText(body)}
request = Request(
    ${JSON.stringify(url)},
    data=json.dumps(body).encode(),
    headers=${headers},
)
with urlopen(request, timeout=10) as answer:
    print(json.load(answer))
`;
}

export function showCommands(url, body, withKey) {
  byId("curl").textContent = curlText(url, body, withKey);
  byId("python").textContent = pythonCode(url, body, withKey);
}

async function copy(node) {
  // Over plain HTTP to another machine there is no clipboard API.
  if (navigator.clipboard) {
    try { await navigator.clipboard.writeText(node.textContent); return true; } catch { /* not allowed: the old way */ }
  }
  getSelection().selectAllChildren(node);
  return document.execCommand("copy");
}

export function prepareCopying() {
  for (const button of document.querySelectorAll("[data-copies]")) {
    const label = button.textContent;
    button.addEventListener("click", async () => {
      const done = await copy(byId(button.dataset.copies));
      byId("copied").textContent = button.textContent = done ? "Copied" : "Select and copy by hand";
      setTimeout(() => { button.textContent = label; }, 1500);
    });
  }
}
