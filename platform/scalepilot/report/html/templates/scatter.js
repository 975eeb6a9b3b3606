// Replica cost against late requests: everybody's mean and interval, the Pareto front, the line of equal cost.
function marker(role, cx, cy) {
  if (role === "baseline") return svg("rect", { class: "mark baseline", x: cx - 5.5, y: cy - 5.5, width: 11, height: 11 });
  if (role === "reference") return svg("path", { class: "mark reference", d: `M${cx},${cy - 7.5}L${cx + 7.5},${cy}L${cx},${cy + 7.5}L${cx - 7.5},${cy}Z` });
  return svg("circle", { class: "mark policy", cx, cy, r: 6.5 });
}
// The position, of sixteen around the point, that covers least of what is there already.
function placeLabels(f, points, named) {
  // Boxes and what it costs to cover them: a label least of all another label, rather a whisker.
  const taken = points.map((p) => [p.cx - 8, p.cy - 8, p.cx + 8, p.cy + 8, 2]);
  for (const p of points) taken.push([p.x0, p.cy - 2, p.x1, p.cy + 2, 0.6], [p.cx - 2, p.y1, p.cx + 2, p.y0, 0.6]);
  const overlap = (a, b) => Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  for (const p of points.filter(named)) {
    const text = svg("text", { class: `label${p.role === "policy" && p.best ? " strong" : ""}` }, shortened(p.name, f.width < 520 ? 18 : 28));
    f.root.append(text);
    const w = text.getComputedTextLength() || p.name.length * 7, h = 14;
    let best = null;
    for (const far of [12, 30, 52, 78])
      for (const [dx, dy] of [[1, -0.7], [1, 0.7], [-1, -0.7], [-1, 0.7], [0, -1], [0, 1], [1, 0], [-1, 0]]) {
        const x = p.cx + dx * far - (dx < 0 ? w : dx === 0 ? w / 2 : 0), y = p.cy + dy * far - h / 2;
        const box = [x, y, x + w, y + h];
        const outside = Math.max(0, f.left - x) + Math.max(0, x + w - f.right) + Math.max(0, f.top - y) + Math.max(0, y + h - f.bottom);
        const badness = taken.reduce((sum, other) => sum + other[4] * overlap(box, other), 0) + 40 * outside + far;
        if (!best || badness < best.badness) best = { badness, box, far };
      }
    taken.push([...best.box, 3]);
    text.setAttribute("x", best.box[0]); text.setAttribute("y", best.box[1] + 11);
    if (best.far > 12) {
      const tx = Math.min(Math.max(p.cx, best.box[0]), best.box[2]), ty = Math.min(Math.max(p.cy, best.box[1]), best.box[3]);
      f.root.insertBefore(svg("line", { class: "leader", x1: p.cx, y1: p.cy, x2: tx, y2: ty }), f.root.querySelector(".mark"));
    }
  }
}
// Percent: one request in a million. Less is drawn at the foot, so that decades nobody feels take no room.
const NEXT_TO_NONE = 1e-4;
function drawScatter(host, { points, equal, fronts = [] }) {
  const f = frame(host, points.length > 8 ? 400 : 330, { left: 46, right: 12, top: 28, bottom: 46 }, "Replica cost per hour against the share of late requests");
  const turned = fronts.flatMap((one) => one.points), everyLate = [...points.map((p) => p.late[0]), ...turned.map((p) => p.late)];
  const late = [...points.flatMap((p) => p.late).filter(known), ...turned.map((p) => p.late)], positive = everyLate.filter((v) => v >= NEXT_TO_NONE);
  const logarithmic = positive.length > 1 && Math.max(...positive) / Math.min(...positive) > 6;
  // Whiskers may leave the plot, so that wide ones do not press the points together.
  const bottom = Math.min(...positive, Math.max(...positive) / 10) / 2.5, most = Math.max(...everyLate);
  const y = logarithmic
    ? scale(bottom, Math.min(Math.max(...late) * 1.35, most * 5), f.bottom, f.top, true)
    : scale(0, (Math.min(Math.max(...late), most * 2) || 1) * 1.1, f.bottom, f.top);
  const costs = [...points.map((p) => p.cost[0]), ...turned.map((p) => p.cost)], first = Math.min(...costs), last = Math.max(...costs), span = last - first || last || 1;
  const inside = (v) => Math.min(Math.max(v, first - span), last + span);
  const x = scale(...padded([...points.flatMap((p) => p.cost).filter(known), ...turned.map((p) => p.cost)].map(inside), 0.08, 0), f.left, f.right);
  const inX = (v) => Math.min(Math.max(x(v), f.left), f.right);
  axisY(f, y, plain, `late requests, %${logarithmic ? " (log scale)" : ""}`);
  axisX(f, x, plain, "replica cost per hour");
  if (equal) {
    const line = [];
    for (let i = 0; i <= 160; i++) {
      const share = logarithmic ? y.low * (y.high / y.low) ** (i / 160) : (y.high * i) / 160;
      const cost = equal.total - share * equal.price_per_percent;
      if (cost >= x.low && cost <= x.high) line.push([x(cost), y(share)]);
    }
    f.root.append(svg("path", { class: "equal", d: path(line) }, svg("title", {}, `J equal to that of ${equal.name}`)));
  }
  const inY = (v) => Math.min(Math.max(y(v), f.top), f.bottom);
  const placed = points.map((p) => {
    const cx = x(p.cost[0]), cy = inY(p.late[0]), whiskers = p.cost.every(known) && p.late.every(known);
    return { ...p, cx, cy, x0: whiskers ? inX(p.cost[1]) : cx, x1: whiskers ? inX(p.cost[2]) : cx, y0: whiskers ? inY(p.late[1]) : cy, y1: whiskers ? inY(p.late[2]) : cy };
  });
  const many = placed.length > 8, ends = [];
  for (const p of placed) {
    f.root.append(svg("line", { class: `whisker ${p.role}${many && !p.best ? " many" : ""}`, x1: p.x0, x2: p.x1, y1: p.cy, y2: p.cy }));
    f.root.append(svg("line", { class: `whisker ${p.role}${many && !p.best ? " many" : ""}`, x1: p.cx, x2: p.cx, y1: p.y0, y2: p.y1 }));
  }
  const front = [...placed, ...turned.map((p) => ({ ...p, cx: x(p.cost), cy: inY(p.late) }))].filter((p) => p.front).sort((a, b) => a.cx - b.cx || a.cy - b.cy);
  const stairs = front.flatMap((p, i) => (i ? [[p.cx, front[i - 1].cy], [p.cx, p.cy]] : [[p.cx, f.top], [p.cx, p.cy]]));
  if (front.length) f.root.append(svg("path", { class: "front", d: path([...stairs, [f.right, front.at(-1).cy]]) }));
  // One policy, shown other prices of a late request: dots on a line; its own row is the mark among them.
  for (const one of fronts) {
    const at = one.points.map((p) => ({ ...p, cx: x(p.cost), cy: inY(p.late) }));
    f.root.append(svg("path", { class: `turned${one.best ? " best" : ""}`, d: path(at.map((p) => [p.cx, p.cy])) }));
    for (const p of at.filter((p) => p.factor !== 1)) {
      const lines = [`${one.name}, shown ${plain(p.factor)} × the price of a late request`, `J ${plain(p.J)} per hour`, `replicas ${plain(p.cost)} per hour`, `late ${plain(p.late)} %`, ...(p.front ? ["on the Pareto front"] : [])];
      const dot = svg("circle", { class: "turn", cx: p.cx, cy: p.cy, r: 3.5, tabindex: "0", role: "img", "aria-label": lines.join(", ") });
      dot.onpointerenter = dot.onpointerdown = dot.onfocus = () => showTip(f.root, p.cx, p.cy, lines);
      dot.onpointerleave = dot.onblur = hideTip;
      f.root.append(dot);
    }
    for (const p of [at[0], at.at(-1)].filter((p) => one.best && p && p.factor !== 1)) ends.push({ ...p, name: `×${plain(p.factor)}`, x0: p.cx, x1: p.cx, y0: p.cy, y1: p.cy, isEnd: true });
  }
  for (const p of placed) {
    const mark = marker(p.role, p.cx, p.cy), spread = (v) => (known(v[1]) ? ` (${plain(v[1])} to ${plain(v[2])})` : "");
    const lines = [p.name, `J ${plain(p.J)} per hour`, `replicas ${plain(p.cost[0])} per hour${spread(p.cost)}`, `late ${plain(p.late[0])} %${spread(p.late)}`, ...(p.front ? ["on the Pareto front"] : [])];
    mark.setAttribute("tabindex", "0"); mark.setAttribute("role", "img"); mark.setAttribute("aria-label", lines.join(", "));
    mark.onpointerenter = mark.onpointerdown = mark.onfocus = () => showTip(f.root, p.cx, p.cy, lines);
    mark.onpointerleave = mark.onblur = hideTip;
    f.root.append(mark);
  }
  // Where there is no room for all names, the others are told on touch.
  const crowded = placed.length > (f.width < 520 ? 6 : 14);
  placeLabels(f, [...placed, ...ends], (p) => !crowded || p.best || p.front || p.isEnd);
}
