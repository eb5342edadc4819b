// The thought browser: a document, the positions of it that have thoughts, the thoughts of one of them.
const state = { run: 0, document: 0, place: 0 };
let marks = [];
let stretches = []; // everything in the document in order, to fade what the model had not seen

const currentRun = () => data.runs[state.run];
const currentDocument = () => currentRun().documents[state.document];
const currentPosition = () => currentDocument().positions[state.place];
const isBytes = (doc) => doc.separator === "";
const kind = (gain) => (gain === null ? "unknown" : gain < 0 ? "cost" : "gain");

/** The gain at which colour is full: nine tenths of all positions are within it, on either side of 0. */
const fullGain = (() => {
  const sizes = data.runs.flatMap((r) => r.documents.flatMap((d) => d.positions.map((p) => Math.abs(p.gain ?? 0))));
  sizes.sort((a, b) => a - b);
  return Math.max(0.1, Number((sizes[Math.floor(sizes.length * 0.9)] ?? 1).toPrecision(1)));
})();

/** Control and direction characters as their codes, so that text cannot hide or rearrange itself. */
function visible(text) {
  const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
  return text.replace(hidden, (c) => `⟨${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}⟩`);
}
const spelled = (text) => visible(text).replace(/ /g, "␣").replace(/\t/g, "⇥").replace(/\n/g, "⏎");

/** A marked token: as it is, but white space gets a sign when chosen; a line break or nothing, always. */
function tokenText(piece, chosen) {
  if (piece === "") return "·";
  if (piece.includes("\n")) return visible(piece).replace(/\n/g, "⏎\n");
  return chosen && piece.trim() === "" ? spelled(piece) : visible(piece);
}

/** A probability from its logarithm. */
function probability(logProbability) {
  if (logProbability === null) return "–";
  const p = Math.exp(logProbability);
  return p >= 0.001 || p === 0 ? p.toFixed(3) : scientific(p, 1);
}

/** Number of the position to show first: the most gain, among those that the data gives if it gives any. */
function mostGain(positions) {
  const given = positions.some((p) => p.given);
  const worth = positions.map((p) => (given && !p.given ? -Infinity : p.gain ?? -Number.MAX_VALUE));
  return worth.indexOf(Math.max(...worth));
}

// ---- the document ----

function drawDocument() {
  const doc = currentDocument();
  const box = el("div", {
    class: isBytes(doc) ? "tokens bytes" : "tokens", role: "listbox", "aria-label": "positions of the document",
  });
  const placeOf = new Map(doc.positions.map((position, place) => [position.fork, place]));
  marks = [];
  stretches = [];
  let plain = "";
  const flush = () => {
    if (!plain) return;
    stretches.push(el("span", {}, visible(plain)));
    box.append(stretches[stretches.length - 1]);
    plain = "";
  };
  doc.tokens.forEach((piece, n) => {
    if (n) plain += doc.separator;
    if (!placeOf.has(n)) {
      plain += piece;
      return;
    }
    flush();
    const mark = drawMark(doc, placeOf.get(n));
    marks.push(mark);
    stretches.push(mark);
    box.append(mark);
  });
  flush();
  const strip = drawStrip(doc);
  strip.classList.toggle("few", doc.positions.length < 5);
  document.getElementById("browser").classList.toggle("short", doc.tokens.length < 80);
  document.getElementById("document-column").replaceChildren(drawScale(), strip, box);
}

function drawMark(doc, place) {
  const { fork, gain } = doc.positions[place];
  const label = `position ${fork}, ${spelled(doc.tokens[fork])}: ${signed(gain, 2)} nats`;
  const mark = el("span", {
    class: `mark ${kind(gain)}`, role: "option", tabindex: -1, title: label, "aria-label": label,
    "aria-selected": "false",
  });
  mark.style.setProperty("--depth", (0.06 + 0.5 * Math.min(1, Math.abs(gain ?? 0) / fullGain)).toFixed(3));
  mark.textContent = tokenText(doc.tokens[fork], false);
  mark.addEventListener("click", () => choosePosition(place));
  return mark;
}

function drawScale() {
  return el("div", { class: "scale" }, "information gain, nats", el("span", {}, `≤ −${fullGain}`), el("i"),
    el("span", {}, `≥ +${fullGain}`), el("span", {}, "(dotted underline: below 0)"));
}

/** A bar per position, in order: gains up, losses down. */
function drawStrip(doc) {
  const count = doc.positions.length;
  const strip = svg("svg", {
    class: "strip", viewBox: `0 0 ${count} 64`, preserveAspectRatio: "none", "aria-hidden": "true",
  });
  const limit = Math.max(fullGain, ...doc.positions.map((p) => Math.abs(p.gain ?? 0)));
  const width = Math.min(0.7, count / 20);
  doc.positions.forEach((position, place) => {
    const height = (Math.abs(position.gain ?? 0) / limit) * 28;
    const bar = { class: kind(position.gain), x: place + (1 - width) / 2, width, height: Math.max(height, 1) };
    strip.append(svg("rect", { ...bar, y: (position.gain ?? 0) < 0 ? 30 : 30 - bar.height }));
  });
  strip.append(svg("rect", { class: "chosen", y: 61, height: 3, width }));
  strip.addEventListener("click", (event) => {
    const box = strip.getBoundingClientRect();
    choosePosition(Math.min(count - 1, Math.floor(((event.clientX - box.left) / box.width) * count)));
  });
  return strip;
}

function choosePosition(place, focus = false) {
  const doc = currentDocument();
  state.place = place;
  marks.forEach((mark, n) => {
    mark.setAttribute("aria-selected", String(n === place));
    mark.tabIndex = n === place ? 0 : -1;
    mark.textContent = tokenText(doc.tokens[doc.positions[n].fork], n === place);
  });
  const reached = stretches.indexOf(marks[place]);
  stretches.forEach((part, n) => part.classList.toggle("unseen", n > reached));
  const pointer = document.querySelector(".strip .chosen");
  pointer.setAttribute("x", place + (1 - Number(pointer.getAttribute("width"))) / 2);
  reveal(marks[place]);
  if (focus) marks[place].focus({ preventScroll: true });
  drawControls();
  drawPanel();
}

/** Scrolls the box of a long document, never the page. */
function reveal(mark) {
  const box = mark.parentElement;
  const [outer, inner] = [box.getBoundingClientRect(), mark.getBoundingClientRect()];
  if (inner.top < outer.top || inner.bottom > outer.bottom) box.scrollTop += inner.top - outer.top - outer.height / 3;
}

// ---- the chosen position ----

function drawPanel() {
  const position = currentPosition();
  const known = position.thoughts.filter((thought) => thought.reward !== null);
  const ordered = [...known.sort((a, b) => b.reward - a.reward), ...position.thoughts.filter((t) => t.reward === null)];
  const closed = ordered.filter((thought) => thought.closed).length;
  const sums = [
    ["information gain, nats", signed(position.gain, 2)],
    ["probability without a thought", probability(position.baseline)],
    ["thoughts", `${ordered.length} (${closed} closed)`],
  ];
  document.getElementById("panel").replaceChildren(
    el("h3", {}, `Position ${position.fork}: what follows is `, el("span", { class: "target" }, spelled(position.target))),
    el("dl", { class: "sums" }, ...sums.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value)))),
    el("p", { class: "how" }, "p: probability of what follows, without a thought (the stroke) → with this thought"),
    el("div", { class: "thoughts" }, ...ordered.map((thought) => drawThought(thought, position))),
  );
}

function drawThought(thought, position) {
  const figure = (name, value) => el("span", {}, `${name} `, el("b", {}, value));
  const words = el("div", { class: isBytes(currentDocument()) ? "words bytes" : "words" });
  words.textContent = visible(thought.text) || "(empty)";
  return el("article", { class: "thought" },
    el("div", { class: "figures" },
      figure("reward", signed(thought.reward, 2)),
      figure("advantage", signed(thought.advantage, 2)),
      figure("tokens", String(thought.tokens)),
      el("span", thought.closed ? {} : { class: "open" }, thought.closed ? "closed" : "not closed"),
    ),
    drawChance(thought, position),
    words);
}

/** The target's probability as a bar from 0 to 1; the stroke is where it is without a thought. */
function drawChance(thought, position) {
  const bar = svg("svg", { viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" });
  bar.append(svg("rect", { class: "track", y: 3, width: 100, height: 6 }));
  if (thought.reasoned !== null) {
    const better = position.baseline === null || thought.reasoned >= position.baseline;
    bar.append(svg("rect", { class: better ? "gain" : "cost", y: 3, width: Math.exp(thought.reasoned) * 100, height: 6 }));
  }
  if (position.baseline !== null) {
    const at = Math.min(99, Math.max(1, Math.exp(position.baseline) * 100));
    bar.append(svg("line", { class: "without", x1: at, x2: at, y1: 0, y2: 12, "vector-effect": "non-scaling-stroke" }));
  }
  return el("div", { class: "chance" }, bar,
    `p ${probability(position.baseline)} → ${probability(thought.reasoned)}`);
}

// ---- choosing a run and a document ----

/** The same position of the same document in another run, or null. */
function counterpart(run) {
  const [doc, other] = [currentDocument(), run.documents[state.document]];
  if (!other || other.tokens.join("\u0000") !== doc.tokens.join("\u0000")) return null;
  const place = other.positions.findIndex((position) => position.fork === currentPosition().fork);
  return place < 0 ? null : place;
}

function chooseRun(run) {
  const place = counterpart(data.runs[run]);
  state.run = run;
  state.document = Math.min(state.document, currentRun().documents.length - 1);
  drawDocument();
  choosePosition(place ?? mostGain(currentDocument().positions));
}

function chooseDocument(place) {
  state.document = place;
  drawDocument();
  choosePosition(mostGain(currentDocument().positions));
}

/** Buttons for the runs, each with its gain at the chosen position, and the list of documents. */
function drawControls() {
  const runs = choices("model", data.runs.map((run) => run.label), state.run, chooseRun);
  runs.querySelectorAll("button").forEach((button, n) => {
    const place = counterpart(data.runs[n]);
    const gain = place === null ? null : data.runs[n].documents[state.document].positions[place].gain;
    button.append(el("small", {}, gain === null ? "not sampled here" : `${signed(gain, 2)} nats here`));
  });
  const select = el("select", { "aria-label": "document" });
  currentRun().documents.forEach((doc, n) => {
    const start = visible(doc.tokens.slice(0, 60).join(doc.separator)).replace(/\s+/g, " ").slice(0, 44);
    select.append(el("option", { value: n }, `document ${n + 1}: ${start}…`));
  });
  select.value = state.document;
  select.addEventListener("change", () => chooseDocument(Number(select.value)));
  const focused = document.activeElement?.closest("#browser-controls button");
  const place = focused ? [...focused.parentElement.querySelectorAll("button")].indexOf(focused) : -1;
  document.getElementById("browser-controls").replaceChildren(runs, select);
  if (place >= 0) runs.querySelectorAll("button")[place].focus({ preventScroll: true });
}

function showThoughts() {
  state.run = Math.max(0, data.runs.findIndex((run) => run.preferred));
  const best = currentRun().documents.map((doc) => doc.positions[mostGain(doc.positions)].gain ?? -Infinity);
  state.document = best.indexOf(Math.max(...best));
  document.getElementById("thoughts").hidden = false;
  document.getElementById("document-column").addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    choosePosition(Math.min(marks.length - 1, Math.max(0, state.place + move)), true);
  });
  drawDocument();
  choosePosition(mostGain(currentDocument().positions));
}

if (data.runs.length) showThoughts();
