// One window played back: requests, replicas and late share over time, a scrubber, and what everybody did at that moment.
const PLAY_SECONDS = 24;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

function timeOf(p, index) {
  const seconds = p.start + index * p.interval_seconds, date = new Date(seconds * 1000);
  const clock = date.toISOString().slice(11, p.interval_seconds % 60 ? 19 : 16);
  // A synthetic workload begins at second 0: it has days, not dates.
  return { clock, day: seconds < 366 * 86400 ? `day ${Math.floor(seconds / 86400)}` : date.toISOString().slice(0, 10) };
}
// The square root where rare bursts would press everything else flat.
function rootScale(high, from, to) {
  const at = (v) => from + (Math.sqrt(Math.max(v, 0)) / Math.sqrt(high)) * (to - from);
  return Object.assign(at, { low: 0, high, values: [0, 1, 10, 30, 100].filter((v) => v <= high && (!v || Math.abs(at(v) - from) >= 12)) });
}
const stairs = (x, y, values) => path(values.flatMap((v, i) => (known(v) ? [[x(i), y(v)], [x(i + 1), y(v)]] : [])));

function setUpPlayback(root, p) {
  const count = p.rate.length, find = (selector) => root.querySelector(selector);
  const chips = find(".chips"), host = find(".chart"), play = find(".play"), scrubber = find("input"), readout = find(".readout");
  // The shown ones come first, so that they have the strongest colours.
  [...p.series].sort((a, b) => b.shown - a.shown).forEach((s, i) => { s.colour = `s${i % 8}`; s.on = s.shown; });
  // Begin where it is busiest.
  let at = p.rate.indexOf(Math.max(...p.rate)), timer = null, chart = null;
  const visible = () => p.series.filter((s) => s.on);

  function panel(f, top, height, title, y, wanted) {
    axisY({ ...f, top }, y, plain, title, wanted);
    f.root.append(svg("line", { class: "axis", x1: f.left, x2: f.right, y1: top + height, y2: top + height }));
  }
  function draw() {
    const narrow = host.clientWidth < 560, heights = narrow ? [70, 150, 80] : [90, 210, 100], gap = 34;
    const f = frame(host, 26 + heights[0] + heights[1] + heights[2] + 2 * gap + 40, { left: 46, right: 12, top: 26, bottom: 40 }, "Requests, replicas and late share over one window");
    const x = scale(0, count, f.left, f.right), order = visible().reverse();
    let top = 26;
    const rateY = scale(0, Math.max(...p.rate) * 1.05 || 1, top + heights[0], top);
    panel(f, top, heights[0], "requests/s", rateY, 3);
    f.root.append(svg("path", { class: "rate", d: path([[x(0), rateY(0)], ...p.rate.map((v, i) => [x(i + 0.5), rateY(v)]), [x(count), rateY(0)]]) }));
    top += heights[0] + gap;
    // All of them set the scale, so that it stays when some are switched on or off.
    const replicasY = scale(0, Math.max(1, ...p.series.flatMap((s) => s.replicas)) * 1.05, top + heights[1], top);
    panel(f, top, heights[1], "replicas", replicasY, 5);
    for (const s of order) f.root.append(svg("path", { class: `curve ${s.colour} ${s.role}`, d: stairs(x, replicasY, s.replicas) }));
    top += heights[1] + gap;
    const lateMost = Math.max(...p.series.flatMap((s) => s.late)), rooted = lateMost > 5;
    const lateY = rooted ? rootScale(Math.min(100, lateMost * 1.05), top + heights[2], top) : scale(0, lateMost * 1.05 || 1, top + heights[2], top);
    panel(f, top, heights[2], `late requests, %${rooted ? " (square-root scale)" : ""}`, lateY, 3);
    for (const s of order) f.root.append(svg("path", { class: `curve thin ${s.colour} ${s.role}`, d: stairs(x, lateY, s.late) }));
    const bottom = top + heights[2], hours = (count * p.interval_seconds) / 3600;
    const every = [0.25, 0.5, 1, 2, 3, 6, 12, 24, 48].find((h) => hours / h <= (f.right - f.left) / 64) || Math.ceil(hours / 6);
    for (let i = 0; i < count; i++) {
      const before = p.start + (i - 1) * p.interval_seconds, now = p.start + i * p.interval_seconds;
      if (Math.floor(before / (every * 3600)) !== Math.floor(now / (every * 3600)) && x(i) > f.left + 14 && x(i) < f.right - 14)
        f.root.append(svg("text", { x: x(i), y: bottom + 18, "text-anchor": "middle" }, timeOf(p, i).clock.slice(0, 5)));
    }
    f.root.append(svg("text", { x: f.right, y: bottom + 36, "text-anchor": "end" }, `time (UTC), from ${timeOf(p, 0).day}`));
    const cursor = svg("line", { class: "cursor", y1: 26, y2: bottom });
    f.root.append(cursor);
    chart = { x, cursor };
    // The track lies under the plot: half a thumb (8 px) to each side.
    play.style.width = narrow ? "64px" : `${f.left - 12}px`;
    scrubber.style.marginLeft = narrow ? "10px" : "4px";
    scrubber.style.width = narrow ? `${f.width - 74}px` : `${f.right - f.left + 16}px`;
    const follow = (event) => {
      if (event.type === "pointermove" && !(event.buttons || event.pointerType === "mouse")) return;
      const px = local(f.root, event)[0];
      if (timer === null && px >= f.left && px <= f.right) show(Math.floor(((px - f.left) / (f.right - f.left)) * count));
    };
    f.root.onpointermove = follow; f.root.onpointerdown = follow;
    show(at);
  }
  function show(index) {
    at = Math.min(Math.max(0, index), count - 1);
    scrubber.value = at;
    const px = chart.x(at + 0.5), time = timeOf(p, at);
    chart.cursor.setAttribute("x1", px); chart.cursor.setAttribute("x2", px);
    scrubber.setAttribute("aria-valuetext", `${time.day} ${time.clock}`);
    const cell = (...lines) => html("div", {}, ...lines);
    readout.replaceChildren(
      cell(html("p", { class: "detail" }, `${time.day}, UTC`), html("p", { class: "value" }, time.clock), html("p", { class: "detail" }, `${shown(p.rate[at], 0)} requests/s`)),
      ...visible().map((s) => {
        const starting = Math.round((s.replicas[at] - s.ready[at]) * 10) / 10;
        return cell(
          html("p", { class: "detail" }, html("span", { class: `dash ${s.colour}` }), html("bdi", {}, s.name)),
          html("p", { class: "value" }, `${plain(s.replicas[at])} replicas`),
          html("p", { class: "detail" }, `${starting > 0 ? `${plain(starting)} starting, ` : ""}${shown(s.late[at], 2)} % late, p95 ${shown(s.p95[at], 0)} ms`));
      }));
  }
  function stop() {
    cancelAnimationFrame(timer); clearTimeout(timer); timer = null;
    play.textContent = "Play"; play.setAttribute("aria-pressed", "false");
  }
  play.onclick = () => {
    if (timer !== null) return stop();
    const from = at >= count - 1 ? 0 : at, begun = performance.now();
    play.textContent = "Pause"; play.setAttribute("aria-pressed", "true");
    // Who asked for less motion gets a still picture a second.
    const next = (tick) => (calm.matches ? setTimeout(() => tick(performance.now()), 1000) : requestAnimationFrame(tick));
    const tick = (now) => {
      show(from + Math.floor(((now - begun) / (1000 * PLAY_SECONDS)) * count));
      if (at >= count - 1) return stop();
      timer = next(tick);
    };
    timer = next(tick);
  };
  scrubber.max = count - 1;
  scrubber.oninput = () => { stop(); show(Number(scrubber.value)); };
  chips.append(...p.series.map((s) => {
    const chip = html("button", { type: "button", class: "chip", "aria-pressed": String(s.on) }, html("span", { class: `dash ${s.colour} ${s.role}` }), html("bdi", {}, s.name));
    chip.onclick = () => { s.on = !s.on; chip.setAttribute("aria-pressed", String(s.on)); draw(); };
    return chip;
  }));
  return { host, draw, stop };
}
