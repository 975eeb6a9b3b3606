"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);

  // Every text goes in as a text node: names are never markup.
  function make(namespace, tag, attributes = {}, ...children) {
    const node = namespace ? document.createElementNS(namespace, tag) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }
  const svg = (tag, attributes, ...children) => make("http://www.w3.org/2000/svg", tag, attributes, ...children);
  const html = (tag, attributes, ...children) => make(null, tag, attributes, ...children);
  const known = (x) => x !== null && x !== undefined;

  // Scales: linear or logarithmic, with round ticks.
  function scale(low, high, from, to, logarithmic = false) {
    const map = logarithmic ? Math.log10 : (x) => x;
    const first = map(low), span = map(high) - first || 1;
    const at = (x) => from + ((map(logarithmic ? Math.max(x, low) : x) - first) / span) * (to - from);
    at.low = low; at.high = high; at.logarithmic = logarithmic;
    return at;
  }
  function ticks(at, wanted) {
    const { low, high } = at, found = [];
    if (at.logarithmic) {
      const mantissas = Math.log10(high / low) > 2.5 ? [1] : Math.log10(high / low) > 1.2 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
        for (const m of mantissas) found.push(m * 10 ** power);
      return found.filter((x) => x >= low * 0.999 && x <= high * 1.001);
    }
    const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((m) => m * power >= rough) * power;
    for (let x = Math.ceil(low / step - 1e-9) * step; x <= high + step * 1e-9; x += step) found.push(Math.abs(x) < step / 1e6 ? 0 : x);
    return found;
  }
  function padded(values, share, floor = -Infinity) {
    const low = Math.min(...values), high = Math.max(...values), pad = (high - low || Math.abs(high) || 1) * share;
    return [Math.max(low - pad, floor), high + pad];
  }
  const plain = (x) => (Math.abs(x) >= 10000 ? Number(x.toPrecision(4)).toLocaleString("en") : String(Number(x.toPrecision(3))));
  const shown = (x, digits) => (known(x) ? x.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }) : "–");
  const steps = (x) => (x >= 1e6 ? plain(x / 1e6) + " M" : x >= 1e3 ? plain(x / 1e3) + " k" : plain(x));

  function frame(host, height, margin, label) {
    const width = Math.max(260, Math.round(host.clientWidth || 640));
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    host.replaceChildren(root);
    return { root, left: margin.left, right: width - margin.right, top: margin.top, bottom: height - margin.bottom, width, height };
  }
  function axisY(f, y, format, title, wanted = 5) {
    for (const t of ticks(y, wanted)) {
      f.root.append(svg("line", { class: "grid", x1: f.left, x2: f.right, y1: y(t), y2: y(t) }));
      f.root.append(svg("text", { x: f.left - 8, y: y(t) + 4, "text-anchor": "end" }, format(t)));
    }
    f.root.append(svg("text", { x: 0, y: f.top - 10 }, title));
  }
  function axisX(f, x, format, title, bottom = f.bottom) {
    f.root.append(svg("line", { class: "axis", x1: f.left, x2: f.right, y1: bottom, y2: bottom }));
    for (const t of ticks(x, Math.max(3, Math.floor((f.right - f.left) / 90))))
      f.root.append(svg("text", { x: x(t), y: bottom + 18, "text-anchor": "middle" }, format(t)));
    f.root.append(svg("text", { x: f.right, y: bottom + 36, "text-anchor": "end" }, title));
  }
  const shortened = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
  const path = (points) => (points.length ? "M" + points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join("L") : "");

  function drawLearning(host, { points, lines }) {
    // Rules are named beside the plot, where no curve runs.
    const texts = lines.map((l) => `${shortened(l.name, 22)} ${l.value.toFixed(2)}`);
    const beside = lines.length ? Math.min(12 + Math.max(...texts.map((t) => t.length)) * 6.6, 0.42 * (host.clientWidth || 640)) : 12;
    const f = frame(host, 330, { left: 46, right: beside, top: 28, bottom: 46 }, "Learning curve: J per hour over environment steps");
    const all = points.flatMap((p) => [p.validation, p.train]).concat(lines.map((l) => l.value)).filter(known);
    const logarithmic = Math.min(...all) > 0 && Math.max(...all) / Math.min(...all) > 4;
    const [low, high] = logarithmic ? [Math.min(...all) * 0.92, Math.max(...all) * 1.08] : padded(all, 0.06, Math.min(...all) >= 0 ? 0 : -Infinity);
    const y = scale(low, high, f.bottom, f.top, logarithmic);
    const x = scale(0, Math.max(...points.map((p) => p.steps)) || 1, f.left, f.right);
    axisY(f, y, plain, `J per hour${logarithmic ? ", log scale" : ""}`);
    axisX(f, x, steps, "environment steps");
    const draw = (key, kind) => f.root.append(
      svg("path", { class: `curve ${kind}`, d: path(points.filter((p) => known(p[key])).map((p) => [x(p.steps), y(p[key])])) }));
    draw("train", "policy train");
    for (const l of lines) f.root.append(svg("line", { class: "rule", x1: f.left, x2: f.right, y1: y(l.value), y2: y(l.value) }));
    draw("validation", "policy");
    const validated = points.filter((p) => known(p.validation));
    const best = validated.reduce((a, b) => (a && a.validation <= b.validation ? a : b), null);
    if (best) {
      f.root.append(svg("circle", { class: "mark policy", cx: x(best.steps), cy: y(best.validation), r: 5 }));
      const right = x(best.steps) > (f.left + f.right) / 2;
      f.root.append(svg("text", { class: "label strong", x: x(best.steps), y: Math.min(y(best.validation) + 20, f.bottom - 5), "text-anchor": right ? "end" : "start" }, `lowest validation ${best.validation.toFixed(2)}`));
    }
    if (points.some((p) => known(p.train))) f.root.append(svg("text", { x: f.width, y: f.top - 10, "text-anchor": "end" }, "thick: validation, thin: training"));
    const labels = lines.map((l, i) => ({ text: texts[i], line: y(l.value), y: y(l.value) + 4 })).sort((a, b) => a.y - b.y);
    for (let i = 1; i < labels.length; i++) labels[i].y = Math.max(labels[i].y, labels[i - 1].y + 15);
    for (let i = labels.length - 1, limit = f.bottom; i >= 0; i--) { labels[i].y = Math.min(labels[i].y, limit); limit = labels[i].y - 15; }
    for (const l of labels) {
      f.root.append(svg("line", { class: "leader", x1: f.right, x2: f.right + 5, y1: l.line, y2: l.y - 4 }));
      f.root.append(svg("text", { class: "label", x: f.right + 8, y: l.y }, l.text));
    }
  }

  function marker(role, cx, cy) {
    if (role === "baseline") return svg("rect", { class: "mark baseline", x: cx - 5.5, y: cy - 5.5, width: 11, height: 11 });
    if (role === "reference") return svg("path", { class: "mark reference", d: `M${cx},${cy - 7.5}L${cx + 7.5},${cy}L${cx},${cy + 7.5}L${cx - 7.5},${cy}Z` });
    return svg("circle", { class: "mark policy", cx, cy, r: 6.5 });
  }
  // The position, of sixteen around the point, that covers least of what is there already.
  function placeLabels(f, points) {
    // Boxes and what it costs to cover them: a label least of all another label, rather a whisker.
    const taken = points.map((p) => [p.cx - 8, p.cy - 8, p.cx + 8, p.cy + 8, 2]);
    for (const p of points) taken.push([p.x0, p.cy - 2, p.x1, p.cy + 2, 0.6], [p.cx - 2, p.y1, p.cx + 2, p.y0, 0.6]);
    const overlap = (a, b) => Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
    for (const p of points) {
      const text = svg("text", { class: `label${p.role === "policy" ? " strong" : ""}` }, shortened(p.name, 28));
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
  function drawScatter(host, { points, equal }) {
    const f = frame(host, 330, { left: 46, right: 12, top: 28, bottom: 46 }, "Replica cost per hour against the share of late requests");
    const late = points.flatMap((p) => p.late).filter(known), positive = points.map((p) => p.late[0]).filter((v) => v > 0);
    const logarithmic = positive.length > 1 && Math.max(...positive) / Math.min(...positive) > 6;
    // Whiskers may leave the plot, so that wide ones do not press the points together.
    const bottom = Math.min(...positive, Math.max(...positive) / 10) / 2.5, most = Math.max(...points.map((p) => p.late[0]));
    const y = logarithmic
      ? scale(bottom, Math.min(Math.max(...late) * 1.35, most * 5), f.bottom, f.top, true)
      : scale(0, (Math.min(Math.max(...late), most * 2) || 1) * 1.1, f.bottom, f.top);
    const costs = points.map((p) => p.cost[0]), first = Math.min(...costs), last = Math.max(...costs), span = last - first || last || 1;
    const inside = (v) => Math.min(Math.max(v, first - span), last + span);
    const x = scale(...padded(points.flatMap((p) => p.cost).filter(known).map(inside), 0.08, 0), f.left, f.right);
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
    for (const p of placed) {
      f.root.append(svg("line", { class: `whisker ${p.role}`, x1: p.x0, x2: p.x1, y1: p.cy, y2: p.cy }));
      f.root.append(svg("line", { class: `whisker ${p.role}`, x1: p.cx, x2: p.cx, y1: p.y0, y2: p.y1 }));
    }
    for (const p of placed) {
      const mark = marker(p.role, p.cx, p.cy);
      mark.append(svg("title", {}, `${p.name}: replicas ${plain(p.cost[0])} per hour, late ${plain(p.late[0])} %, J ${plain(p.J)}`));
      f.root.append(mark);
    }
    placeLabels(f, placed);
  }

  const playback = { at: null, timer: null };
  function timeOf(p, index) {
    const seconds = p.start + index * p.interval_seconds, date = new Date(seconds * 1000);
    const clock = date.toISOString().slice(11, p.interval_seconds % 60 ? 19 : 16);
    // A synthetic workload begins at second 0: it has days, not dates.
    return { clock, day: seconds < 366 * 86400 ? `day ${Math.floor(seconds / 86400)}` : date.toISOString().slice(0, 10) };
  }
  function panel(f, p, x, top, height, title, low, high, wanted) {
    const y = scale(low, high, top + height, top);
    axisY({ ...f, top }, y, plain, title, wanted);
    f.root.append(svg("line", { class: "axis", x1: f.left, x2: f.right, y1: top + height, y2: top + height }));
    return y;
  }
  function drawPlayback(host, p) {
    const count = p.rate.length, narrow = host.clientWidth < 560;
    const heights = narrow ? [70, 150, 80] : [90, 210, 100], gap = 34;
    const f = frame(host, 26 + heights[0] + heights[1] + heights[2] + 2 * gap + 40, { left: 46, right: 12, top: 26, bottom: 40 }, "Requests, replicas and late share over one window");
    const x = scale(0, count, f.left, f.right);
    let top = 26;
    const rateY = panel(f, p, x, top, heights[0], "requests/s", 0, Math.max(...p.rate) * 1.05 || 1, 3);
    const outline = p.rate.map((v, i) => [x(i + 0.5), rateY(v)]);
    f.root.append(svg("path", { class: "rate", d: path([[x(0), rateY(0)], ...outline, [x(count), rateY(0)]]) }));
    top += heights[0] + gap;
    const order = [...p.series].reverse();
    const stairs = (values, y) => path(values.flatMap((v, i) => (known(v) ? [[x(i), y(v)], [x(i + 1), y(v)]] : [])));
    const most = Math.max(...p.series.flatMap((s) => s.replicas));
    const replicasY = panel(f, p, x, top, heights[1], "replicas", 0, most * 1.05, 5);
    for (const s of order) f.root.append(svg("path", { class: `curve ${s.role}`, d: stairs(s.replicas, replicasY) }));
    let right = f.right;
    for (const s of order) {
      const label = svg("text", { class: "label", x: right, y: top - 10, "text-anchor": "end" }, shortened(s.name, narrow ? 14 : 28));
      f.root.append(label);
      const width = label.getComputedTextLength() || s.name.length * 7;
      f.root.append(svg("line", { class: `curve ${s.role}`, x1: right - width - 22, x2: right - width - 5, y1: top - 14, y2: top - 14 }));
      right -= width + 36;
    }
    top += heights[1] + gap;
    const lateMost = Math.max(...p.series.flatMap((s) => s.late));
    const lateY = panel(f, p, x, top, heights[2], "late requests, %", 0, lateMost > 0 ? Math.min(100, lateMost * 1.05) : 1, 3);
    for (const s of order) f.root.append(svg("path", { class: `curve thin ${s.role}`, d: stairs(s.late, lateY) }));
    const bottom = top + heights[2], hours = (count * p.interval_seconds) / 3600;
    const every = [0.25, 0.5, 1, 2, 3, 6, 12, 24, 48].find((h) => hours / h <= (f.right - f.left) / 64) || Math.ceil(hours / 6);
    for (let i = 0; i < count; i++) {
      const before = p.start + (i - 1) * p.interval_seconds, now = p.start + i * p.interval_seconds;
      if (Math.floor(before / (every * 3600)) !== Math.floor(now / (every * 3600)) && x(i) > f.left + 14)
        f.root.append(svg("text", { x: x(i), y: bottom + 18, "text-anchor": "middle" }, timeOf(p, i).clock.slice(0, 5)));
    }
    f.root.append(svg("text", { x: f.right, y: bottom + 36, "text-anchor": "end" }, `time (UTC), from ${timeOf(p, 0).day}`));
    const cursor = svg("line", { class: "cursor", y1: 26, y2: bottom });
    f.root.append(cursor);

    const scrubber = byId("scrubber"), play = byId("play");
    scrubber.max = count - 1;
    // The track lies under the plot: half a thumb (8 px) to each side.
    play.style.width = narrow ? "64px" : `${f.left - 12}px`;
    scrubber.style.marginLeft = narrow ? "10px" : "4px";
    scrubber.style.width = narrow ? `${f.width - 74}px` : `${f.right - f.left + 16}px`;
    playback.show = (index) => {
      playback.at = Math.min(Math.max(0, index), count - 1);
      scrubber.value = playback.at;
      const at = x(playback.at + 0.5), time = timeOf(p, playback.at);
      cursor.setAttribute("x1", at); cursor.setAttribute("x2", at);
      scrubber.setAttribute("aria-valuetext", `${time.day} ${time.clock}`);
      const cell = (...lines) => html("div", {}, ...lines);
      byId("readout").replaceChildren(
        cell(html("p", { class: "detail" }, `${time.day}, UTC`), html("p", { class: "big" }, time.clock), html("p", { class: "detail" }, `${shown(p.rate[playback.at], 0)} requests/s`)),
        ...p.series.map((s) => {
          const starting = Math.round((s.replicas[playback.at] - s.ready[playback.at]) * 10) / 10;
          return cell(
            html("p", { class: "detail" }, html("span", { class: `swatch ${s.role}` }), s.name),
            html("p", { class: "big" }, `${plain(s.replicas[playback.at])} replicas`),
            html("p", { class: "detail" }, `${starting > 0 ? `${plain(starting)} starting, ` : ""}${shown(s.late[playback.at], 2)} % late, p95 ${shown(s.p95[playback.at], 0)} ms`));
        }));
    };
    scrubber.oninput = () => { stop(); playback.show(Number(scrubber.value)); };
    const follow = (event) => {
      if (event.pointerType === "touch" && event.type === "pointermove" && !event.buttons) return;
      const box = f.root.getBoundingClientRect(), px = ((event.clientX - box.left) / box.width) * f.width;
      if (px >= f.left && px <= f.right && !playback.timer) playback.show(Math.floor(((px - f.left) / (f.right - f.left)) * count));
    };
    f.root.onpointermove = follow; f.root.onpointerdown = follow;
    function stop() {
      cancelAnimationFrame(playback.timer); playback.timer = null;
      play.textContent = "Play"; play.setAttribute("aria-pressed", "false");
    }
    play.onclick = () => {
      if (playback.timer) return stop();
      const from = playback.at >= count - 1 ? 0 : playback.at, begun = performance.now();
      play.textContent = "Pause"; play.setAttribute("aria-pressed", "true");
      const tick = (now) => {
        const index = from + Math.floor(((now - begun) / 24000) * count);
        playback.show(index);
        if (index >= count - 1) return stop();
        playback.timer = requestAnimationFrame(tick);
      };
      playback.timer = requestAnimationFrame(tick);
    };
    // Begin where it is busiest.
    playback.show(playback.at ?? p.rate.indexOf(Math.max(...p.rate)));
  }

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

  const charts = [["learning", drawLearning], ["scatter", drawScatter], ["playback", drawPlayback]]
    .filter(([id]) => data[id] && byId(id))
    .map(([id, draw]) => ({ host: byId(id), draw: () => draw(byId(id), data[id]), width: 0 }));
  const redraw = () => {
    for (const chart of charts)
      if (chart.host.clientWidth !== chart.width) { chart.width = chart.host.clientWidth; chart.draw(); }
  };
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  redraw();
  new ResizeObserver(() => requestAnimationFrame(redraw)).observe(document.body);
})();
