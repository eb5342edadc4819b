// The thought browser: a document, its positions with thoughts, and the thoughts at one position.
const state = { run: 0, document: 0, position: 0 };
let marks = [];
let spans = []; // all parts of the document in order, to fade the text that the model has not seen

const currentRun = () => data.runs[state.run];
const currentDocument = () => currentRun().documents[state.document];
const currentPosition = () => currentDocument().positions[state.position];
const isBytes = (doc) => doc.separator === "";
const kind = (gain) => (gain === null ? "unknown" : gain < 0 ? "cost" : "gain");

/** The absolute gain of full color: the 90th percentile over all positions. */
const fullGain = (() => {
  const sizes = data.runs.flatMap((r) => r.documents.flatMap((d) => d.positions.map((p) => Math.abs(p.gain ?? 0))));
  sizes.sort((a, b) => a - b);
  return Math.max(0.1, Number((sizes[Math.floor(sizes.length * 0.9)] ?? 1).toPrecision(1)));
})();

/** Replaces control and direction characters by their codes, so that text cannot hide or reorder. */
function visible(text) {
  const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
  return text.replace(hidden, (c) => `⟨${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}⟩`);
}
const spelled = (text) => visible(text).replace(/ /g, "␣").replace(/\t/g, "⇥").replace(/\n/g, "⏎");

/** Text of a marked token: line breaks and empty tokens get a symbol, other white space if it is chosen. */
function tokenText(piece, chosen) {
  if (piece === "") return "·";
  if (piece.includes("\n")) return visible(piece).replace(/\n/g, "⏎\n");
  return chosen && piece.trim() === "" ? spelled(piece) : visible(piece);
}

/** Formats a probability, given its logarithm. */
function probability(logProbability) {
  if (logProbability === null) return "–";
  const p = Math.exp(logProbability);
  return p >= 0.001 || p === 0 ? p.toFixed(3) : scientific(p, 1);
}

/** Index of the position to show first: the largest gain, among positions given by the data if any are. */
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
  const indexOfFork = new Map(doc.positions.map((position, index) => [position.fork, index]));
  marks = [];
  spans = [];
  let plain = "";
  const flush = () => {
    if (!plain) return;
    spans.push(el("span", {}, visible(plain)));
    box.append(spans[spans.length - 1]);
    plain = "";
  };
  doc.tokens.forEach((piece, n) => {
    if (n) plain += doc.separator;
    if (!indexOfFork.has(n)) {
      plain += piece;
      return;
    }
    flush();
    const mark = drawMark(doc, indexOfFork.get(n));
    marks.push(mark);
    spans.push(mark);
    box.append(mark);
  });
  flush();
  const strip = drawStrip(doc);
  strip.classList.toggle("few", doc.positions.length < 5);
  document.getElementById("browser").classList.toggle("short", doc.tokens.length < 80);
  document.getElementById("document-column").replaceChildren(drawScale(), strip, box);
}

function drawMark(doc, index) {
  const { fork, gain } = doc.positions[index];
  const label = `position ${fork}, ${spelled(doc.tokens[fork])}: ${signed(gain, 2)} nats`;
  const mark = el("span", {
    class: `mark ${kind(gain)}`, role: "option", tabindex: -1, title: label, "aria-label": label,
    "aria-selected": "false",
  });
  mark.style.setProperty("--depth", (0.06 + 0.5 * Math.min(1, Math.abs(gain ?? 0) / fullGain)).toFixed(3));
  mark.textContent = tokenText(doc.tokens[fork], false);
  mark.addEventListener("click", () => choosePosition(index));
  return mark;
}

function drawScale() {
  return el("div", { class: "scale" }, "information gain (nats)", el("span", {}, `≤ −${fullGain}`), el("i"),
    el("span", {}, `≥ +${fullGain}`), el("span", {}, "(dotted underline: negative)"));
}

/** One bar per position, in order: positive gains up, negative gains down. */
function drawStrip(doc) {
  const count = doc.positions.length;
  const strip = svg("svg", {
    class: "strip", viewBox: `0 0 ${count} 64`, preserveAspectRatio: "none", "aria-hidden": "true",
  });
  const limit = Math.max(fullGain, ...doc.positions.map((p) => Math.abs(p.gain ?? 0)));
  const width = Math.min(0.7, count / 20);
  doc.positions.forEach((position, index) => {
    const height = (Math.abs(position.gain ?? 0) / limit) * 28;
    const bar = { class: kind(position.gain), x: index + (1 - width) / 2, width, height: Math.max(height, 1) };
    strip.append(svg("rect", { ...bar, y: (position.gain ?? 0) < 0 ? 30 : 30 - bar.height }));
  });
  strip.append(svg("rect", { class: "chosen", y: 61, height: 3, width }));
  strip.addEventListener("click", (event) => {
    const box = strip.getBoundingClientRect();
    choosePosition(Math.min(count - 1, Math.floor(((event.clientX - box.left) / box.width) * count)));
  });
  return strip;
}

function choosePosition(index, focus = false) {
  const doc = currentDocument();
  state.position = index;
  marks.forEach((mark, n) => {
    mark.setAttribute("aria-selected", String(n === index));
    mark.tabIndex = n === index ? 0 : -1;
    mark.textContent = tokenText(doc.tokens[doc.positions[n].fork], n === index);
  });
  const reached = spans.indexOf(marks[index]);
  spans.forEach((part, n) => part.classList.toggle("unseen", n > reached));
  const pointer = document.querySelector(".strip .chosen");
  pointer.setAttribute("x", index + (1 - Number(pointer.getAttribute("width"))) / 2);
  reveal(marks[index]);
  if (focus) marks[index].focus({ preventScroll: true });
  drawControls();
  drawPanel();
}

/** Scrolls the box of a long document, not the page. */
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
    ["information gain (nats)", signed(position.gain, 2)],
    ["probability without a thought", probability(position.baseline)],
    ["thoughts", `${ordered.length} (${closed} closed)`],
  ];
  document.getElementById("panel").replaceChildren(
    el("h3", {}, `Position ${position.fork}, target: `, el("span", { class: "target" }, spelled(position.target))),
    el("dl", { class: "sums" }, ...sums.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value)))),
    el("p", { class: "how" }, "p: probability of the target without a thought (vertical line) → with this thought (bar)"),
    el("div", { class: "thoughts" }, ...ordered.map((thought) => drawThought(thought, position))),
  );
}

function drawThought(thought, position) {
  const field = (name, value) => el("span", {}, `${name} `, el("b", {}, value));
  const words = el("div", { class: isBytes(currentDocument()) ? "words bytes" : "words" });
  words.textContent = visible(thought.text) || "(empty)";
  return el("article", { class: "thought" },
    el("div", { class: "fields" },
      field("reward", signed(thought.reward, 2)),
      field("advantage", signed(thought.advantage, 2)),
      field("tokens", String(thought.tokens)),
      el("span", thought.closed ? {} : { class: "open" }, thought.closed ? "closed" : "not closed"),
    ),
    drawChance(thought, position),
    words);
}

/** The target's probability as a bar from 0 to 1; a vertical line marks it without a thought. */
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

/** Index of the same position of the same document in another run, or null. */
function counterpart(run) {
  const [doc, other] = [currentDocument(), run.documents[state.document]];
  if (!other || other.tokens.join("\u0000") !== doc.tokens.join("\u0000")) return null;
  const index = other.positions.findIndex((position) => position.fork === currentPosition().fork);
  return index < 0 ? null : index;
}

function chooseRun(run) {
  const index = counterpart(data.runs[run]);
  state.run = run;
  state.document = Math.min(state.document, currentRun().documents.length - 1);
  drawDocument();
  choosePosition(index ?? mostGain(currentDocument().positions));
}

function chooseDocument(index) {
  state.document = index;
  drawDocument();
  choosePosition(mostGain(currentDocument().positions));
}

/** Draws a button per run, with its gain at the chosen position, and the list of documents. */
function drawControls() {
  const runs = choices("model", data.runs.map((run) => run.label), state.run, chooseRun);
  runs.querySelectorAll("button").forEach((button, n) => {
    const index = counterpart(data.runs[n]);
    const gain = index === null ? null : data.runs[n].documents[state.document].positions[index].gain;
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
  const index = focused ? [...focused.parentElement.querySelectorAll("button")].indexOf(focused) : -1;
  document.getElementById("browser-controls").replaceChildren(runs, select);
  if (index >= 0) runs.querySelectorAll("button")[index].focus({ preventScroll: true });
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
    choosePosition(Math.min(marks.length - 1, Math.max(0, state.position + move)), true);
  });
  drawDocument();
  choosePosition(mostGain(currentDocument().positions));
}

if (data.runs.length) showThoughts();
