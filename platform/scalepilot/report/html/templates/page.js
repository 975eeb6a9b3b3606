// The page itself: sorting, workloads as tabs, copying, drawing what is visible and all of it for print.
function makeSortable(table) {
  const headings = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  headings.forEach((heading, column) => {
    const button = heading.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((h) => h.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.sort;
      const order = (a, b) => {
        // What is unknown goes last, whichever way.
        if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
        const difference = column ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b));
        return ascending ? difference : -difference;
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}

const all = (selector) => [...document.querySelectorAll(selector)];
const charts = [];
for (const node of all("[data-chart]")) {
  const kind = node.dataset.chart, workload = data.workloads[node.dataset.workload];
  if (kind === "learning") charts.push({ host: node, draw: () => drawLearning(node, data.learning) });
  else if (kind === "scatter") charts.push({ host: node, draw: () => drawScatter(node, workload.scatter) });
  else charts.push(setUpPlayback(node, workload.playback));
}
function redraw() {
  for (const chart of charts) {
    const width = chart.host.clientWidth;
    // What is hidden has no width; it is drawn when it is shown.
    if (width && width !== chart.width) { chart.width = width; hideTip(); chart.draw(); }
  }
}

const tabs = all('[role="tab"]'), panels = all('[role="tabpanel"]');
function select(index) {
  tabs.forEach((tab, i) => {
    tab.setAttribute("aria-selected", String(i === index));
    tab.tabIndex = i === index ? 0 : -1;
    panels[i].hidden = i !== index;
  });
  charts.forEach((chart) => chart.stop?.());
  redraw();
}
tabs.forEach((tab, i) => {
  tab.onclick = () => select(i);
  tab.onkeydown = (event) => {
    const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = (to + tabs.length) % tabs.length;
    select(next); tabs[next].focus();
  };
});
if (tabs.length) select(0);
// On paper everything is there.
addEventListener("beforeprint", () => { panels.forEach((panel) => { panel.hidden = false; }); redraw(); });
addEventListener("afterprint", () => { if (tabs.length) select(tabs.findIndex((t) => t.getAttribute("aria-selected") === "true")); });

all("button.copy").forEach((button) => {
  const code = button.parentElement.querySelector("code");
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      // Not allowed here: at least it is selected.
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  };
});
all("table.sortable").forEach(makeSortable);
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
redraw();
new ResizeObserver(() => requestAnimationFrame(redraw)).observe(document.body);
