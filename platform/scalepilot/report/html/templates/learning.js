// Learning curves: the mean over training seeds, a band between the lowest and the highest, rules as lines across.
function drawLearning(host, { value, lower_is_better: lower, curves, lines }) {
  const wide = (host.clientWidth || 640) >= 520, several = curves.length > 1;
  const texts = lines.map((l) => `${shortened(l.name, 22)} ${plain(l.value)}`);
  const beside = lines.length && wide ? 12 + Math.max(...texts.map((t) => t.length)) * 6.8 : 12;
  const top = several ? 48 + 18 * Math.floor((curves.length - 1) / (wide ? 3 : 1)) : 28;
  const f = frame(host, 330 + top - 28, { left: 46, right: Math.min(beside, 0.42 * (host.clientWidth || 640)), top, bottom: 46 }, `Learning curve: ${value} over environment steps`);
  const validated = curves.flatMap((c) => [...c.mean, ...(c.low || []), ...(c.high || [])]).filter(known);
  const trained = curves.flatMap((c) => (c.training ? c.training[1] : [])).filter(known);
  const all = [...validated, ...trained, ...lines.map((l) => l.value)], sorted = [...all].sort((a, b) => a - b);
  const logarithmic = lower && sorted[0] > 0 && sorted.at(-1) / sorted[0] > 4;
  // A few wild episodes in the beginning must not flatten all that follows.
  const worst = lower ? sorted.at(-1) : sorted[Math.floor(sorted.length * (sorted.length > 60 ? 0.03 : 0))];
  const ends = lower ? [sorted[0], worst] : [worst, sorted.at(-1)];
  const [low, high] = logarithmic ? [ends[0] * 0.92, ends[1] * 1.08] : padded(ends, 0.06, lower && sorted[0] >= 0 ? 0 : -Infinity);
  const y = scale(low, high, f.bottom, f.top, logarithmic), last = Math.max(...curves.flatMap((c) => [...c.steps, ...(c.training ? c.training[0] : [])]));
  const x = scale(0, last || 1, f.left, f.right), inY = (v) => Math.min(Math.max(y(v), f.top), f.bottom);
  axisY({ ...f, top }, y, plain, `${value}${logarithmic ? ", log scale" : ""}`);
  axisX(f, x, steps, "environment steps");
  const line = (kind, at, values) => svg("path", { class: `curve ${kind}`, d: path(at.map((s, i) => [x(s), inY(values[i])])) });
  for (const l of lines) f.root.append(svg("line", { class: "rule", x1: f.left, x2: f.right, y1: inY(l.value), y2: inY(l.value) }));
  curves.forEach((c, i) => {
    if (c.low) f.root.append(svg("path", { class: `band s${i % 8}`, d: path([...c.steps.map((s, k) => [x(s), inY(c.high[k])]), ...c.steps.map((s, k) => [x(s), inY(c.low[k])]).reverse()]) + "Z" }));
    if (c.training && !several) f.root.append(line("s0 train", ...c.training));
  });
  curves.forEach((c, i) => f.root.append(line(`s${i % 8}`, c.steps, c.mean)));
  if (several) curves.forEach((c, i) => {
    const columns = wide ? 3 : 1, step = (f.width - 4) / columns, cx = (i % columns) * step, cy = 14 + 18 * Math.floor(i / columns);
    f.root.append(svg("line", { class: `curve s${i % 8}`, x1: cx, x2: cx + 18, y1: cy - 4, y2: cy - 4 }));
    f.root.append(svg("text", { class: "label", x: cx + 24, y: cy }, shortened(c.name, Math.floor((step - 30) / 7))));
  });
  else {
    const [c] = curves, better = (a, b) => (lower ? c.mean[a] <= c.mean[b] : c.mean[a] >= c.mean[b]);
    const best = c.mean.reduce((kept, _, i) => (kept < 0 || better(i, kept) ? i : kept), -1);
    if (best >= 0) {
      const cx = x(c.steps[best]), cy = inY(c.mean[best]), right = cx > (f.left + f.right) / 2;
      f.root.append(svg("circle", { class: "mark s0", cx, cy, r: 5 }));
      const above = lower ? Math.min(cy + 20, f.bottom - 5) : cy - 12 < f.top + 12 ? cy + 20 : cy - 12;
      f.root.append(svg("text", { class: "label strong", x: cx, y: above, "text-anchor": right ? "end" : "start" }, `best validation ${plain(c.mean[best])}`));
    }
    if (c.training && c.training[0].length && c.mean.length) f.root.append(svg("text", { x: f.width, y: f.top - 10, "text-anchor": "end" }, wide ? "thick: validation, thin: training" : "thin: training"));
  }
  const labels = lines.map((l, i) => ({ text: texts[i], line: inY(l.value), y: inY(l.value) + 4 })).sort((a, b) => a.y - b.y);
  for (let i = 1; i < labels.length; i++) labels[i].y = Math.max(labels[i].y, labels[i - 1].y + 15);
  for (let i = labels.length - 1, limit = f.bottom; i >= 0; i--) { labels[i].y = Math.min(labels[i].y, limit); limit = labels[i].y - 15; }
  for (const l of labels) {
    if (wide) f.root.append(svg("line", { class: "leader", x1: f.right, x2: f.right + 5, y1: l.line, y2: l.y - 4 }));
    f.root.append(svg("text", { class: "label", x: wide ? f.right + 8 : f.right, y: wide ? l.y : l.y - 7, "text-anchor": wide ? "start" : "end" }, l.text));
  }
  const cursor = svg("line", { class: "cursor", y1: f.top, y2: f.bottom, visibility: "hidden" });
  f.root.append(cursor);
  f.root.onpointermove = (event) => {
    const [px, py] = local(f.root, event), at = ((px - f.left) / (f.right - f.left)) * x.high;
    if (at < 0 || at > x.high) return f.root.onpointerleave();
    cursor.setAttribute("x1", px); cursor.setAttribute("x2", px); cursor.setAttribute("visibility", "visible");
    const nearest = (c) => c.steps.reduce((kept, s, i) => (Math.abs(s - at) < Math.abs(c.steps[kept] - at) ? i : kept), 0);
    const told = (c) => { const i = nearest(c); return `${shortened(c.name, 30)}: ${plain(c.mean[i])}${c.low ? ` (${plain(c.low[i])} to ${plain(c.high[i])})` : ""}`; };
    showTip(f.root, px, py, [`${steps(at)} steps`, ...curves.filter((c) => c.steps.length).map(told)]);
  };
  f.root.onpointerdown = f.root.onpointermove;
  f.root.onpointerleave = () => { hideTip(); cursor.setAttribute("visibility", "hidden"); };
}
