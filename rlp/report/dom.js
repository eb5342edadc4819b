"use strict";
// The page's data, and helpers that build its elements. Strings become text nodes or attribute values;
// neither this script nor the ones after it parse a string as markup.
const data = JSON.parse(document.getElementById("report-data").textContent);

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
const el = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const fixed = (x, digits) => (x === null ? "–" : x.toFixed(digits).replace("-", "−"));
const signed = (x, digits) => (x > 0 ? "+" : "") + fixed(x, digits);
const superscript = (n) => [...String(n)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("");

function scientific(x, digits) {
  const [mantissa, exponent] = x.toExponential(digits).split("e");
  return `${mantissa}×10${superscript(Number(exponent))}`;
}

/** Formats a number of any size with about three digits. */
function short(x) {
  const size = Math.abs(x);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return scientific(x, 1).replace(/^-/, "−");
  return fixed(x, size < 10 ? 3 : size < 100 ? 2 : 0);
}

/** A row of buttons, one of which is pressed; calls `choose` with the index of the pressed button. */
function choices(label, names, pressed, choose) {
  const buttons = names.map((name, index) => {
    const button = el("button", { type: "button", "aria-pressed": String(index === pressed) }, name);
    button.addEventListener("click", () => {
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      choose(index);
    });
    return button;
  });
  return el("div", { class: "choices", role: "group", "aria-label": label }, el("span", {}, label), ...buttons);
}
