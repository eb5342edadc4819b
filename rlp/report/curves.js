// Training curves: one small SVG per metric, a common horizontal axis, and a readout at the pointer.
const PLOT = { width: 340, height: 200, left: 44, right: 14, top: 10, bottom: 34 };
const stroke = (color) => `s${color % 8} d${color % 5}`;

/** Returns about `count` round numbers in low…high. */
function ticks(low, high, count) {
  const rough = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const values = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) values.push(n * step);
  return values;
}

function tickLabels(values) {
  const gap = values.length > 1 ? values[1] - values[0] : Math.abs(values[0]) || 1;
  const digits = Math.max(0, -Math.floor(Math.log10(gap) + 1e-9));
  return values.map((v) => (digits > 4 ? scientific(v, 0) : fixed(v + 0, digits)));
}

function extent(plot, series, axis) {
  const lines = series.flatMap((s) => [...s.lines, s.bold]);
  const ys = lines.flatMap((line) => line.y);
  let [low, high] = plot.unit === "share" ? [0, 1] : [Math.min(...ys), Math.max(...ys)];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const pad = (high - low) * 0.05;
  return { x: Math.max(...lines.flatMap((line) => line[axis]), 1e-9), low: low - pad, high: high + pad };
}

function path(line, axis, x, y) {
  return line.y.map((v, n) => `${n ? "L" : "M"}${x(line[axis][n]).toFixed(1)} ${y(v).toFixed(1)}`).join("");
}

function drawPlot(plot, axis, hidden) {
  const series = plot.series.filter((s) => !hidden.has(s.color));
  const picture = svg("svg", { viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, role: "img", "aria-label": plot.title });
  const readout = el("p", { class: "readout" });
  const caption = el("figcaption", {}, plot.title + (plot.unit ? ` (${plot.unit})` : ""), el("span", {}, plot.meaning));
  const figure = el("figure", { class: "plot" }, caption, picture, readout);
  if (!series.length) return figure;

  const range = extent(plot, series, axis);
  const bottom = PLOT.height - PLOT.bottom;
  const x = (v) => PLOT.left + (v / range.x) * (PLOT.width - PLOT.left - PLOT.right);
  const y = (v) => bottom - ((v - range.low) / (range.high - range.low)) * (bottom - PLOT.top);

  const rows = ticks(range.low, range.high, 4);
  tickLabels(rows).forEach((label, n) => {
    const at = y(rows[n]);
    picture.append(
      svg("line", { class: rows[n] === 0 ? "axis" : "grid", x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: at, y2: at }),
      svg("text", { x: PLOT.left - 6, y: at + 4, "text-anchor": "end" }, label),
    );
  });
  const power = axis === "flops" ? Math.floor(Math.log10(range.x)) : 0;
  const columns = ticks(0, range.x, 4);
  tickLabels(columns.map((v) => v / 10 ** power)).forEach((label, n) => {
    picture.append(svg("text", { x: x(columns[n]), y: bottom + 15, "text-anchor": "middle" }, label));
  });
  const name = axis === "flops" ? `training FLOPs (×10${superscript(power)})` : "step";
  picture.append(svg("text", { x: PLOT.width - PLOT.right, y: bottom + 30, "text-anchor": "end" }, name));

  for (const s of series) {
    for (const line of s.lines) {
      picture.append(svg("path", { class: `thin s${s.color % 8}`, d: path(line, axis, x, y) }));
    }
    picture.append(svg("path", { class: `bold ${stroke(s.color)}`, d: path(s.bold, axis, x, y) }));
    if (!plot.heldOut && s.bold.y.length > 1) continue;
    s.bold.y.forEach((v, n) =>
      picture.append(svg("circle", { class: `s${s.color % 8}`, cx: x(s.bold[axis][n]), cy: y(v), r: 3 })),
    );
  }
  addReadout(picture, readout, series, axis, x, range);
  return figure;
}

/** Shows the value nearest to the pointer for every series that extends that far. */
function addReadout(picture, readout, series, axis, x, range) {
  const cursor = svg("line", { class: "cursor", y1: PLOT.top, y2: PLOT.height - PLOT.bottom, visibility: "hidden" });
  picture.append(cursor);
  picture.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    readout.textContent = "";
  });
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const inside = ((event.clientX - box.left) / box.width) * PLOT.width - PLOT.left;
    const at = Math.min(1, Math.max(0, inside / (PLOT.width - PLOT.left - PLOT.right))) * range.x;
    const words = [];
    for (const s of series) {
      const xs = s.bold[axis];
      if (!xs.length || at > xs[xs.length - 1] + range.x * 0.02) continue;
      let nearest = 0;
      xs.forEach((v, n) => { if (Math.abs(v - at) < Math.abs(xs[nearest] - at)) nearest = n; });
      words.push(`${data.groups[s.color]} ${short(s.bold.y[nearest])}`);
    }
    cursor.setAttribute("visibility", "visible");
    cursor.setAttribute("x1", x(at));
    cursor.setAttribute("x2", x(at));
    readout.textContent = `${axis === "flops" ? scientific(at, 2) + " FLOPs" : "step " + Math.round(at)}: ${words.join(" · ")}`;
  });
}

function legend(hidden, draw) {
  const keys = data.groups.map((name, color) => {
    const sample = svg("svg", { width: 28, height: 8, "aria-hidden": "true" });
    sample.append(svg("line", { class: `bold ${stroke(color)}`, x1: 0, x2: 28, y1: 4, y2: 4 }));
    const key = el("button", { type: "button", class: "key", "aria-pressed": "true", title: "show or hide" }, sample, name);
    key.addEventListener("click", () => {
      const shown = hidden.delete(color);
      if (!shown) hidden.add(color);
      key.setAttribute("aria-pressed", String(shown));
      draw();
    });
    return key;
  });
  return el("div", { class: "choices legend", role: "group", "aria-label": "visible curves" }, ...keys);
}

function showCurves() {
  const lines = data.plots.flatMap((plot) => plot.series.flatMap((s) => [...s.lines, s.bold]));
  const counted = lines.every((line) => line.flops.length === line.y.length);
  const hidden = new Set();
  let axis = counted ? "flops" : "step";
  const grid = (heldOut) => data.plots.filter((p) => p.heldOut === heldOut).map((p) => drawPlot(p, axis, hidden));
  const draw = () => {
    document.getElementById("plots").replaceChildren(...grid(false));
    document.getElementById("held-out-plots").replaceChildren(...grid(true));
  };
  const controls = document.getElementById("curve-controls");
  controls.append(legend(hidden, draw));
  if (counted) {
    controls.append(choices("x-axis", ["training FLOPs", "step"], 0, (n) => { axis = n ? "step" : "flops"; draw(); }));
  }
  document.getElementById("curves").hidden = false;
  document.getElementById("held-out").hidden = !data.plots.some((plot) => plot.heldOut);
  draw();
}

if (data.plots.length) showCurves();
