// A sheet is one half of the bench. It is in one state at a time, and shows what its children's
// data-when name for it.

import { announce, make } from "./make.js";

export function setState(sheet, state) {
  sheet.dataset.state = state;
  sheet.toggleAttribute("aria-busy", false);
  if (state === "working") sheet.setAttribute("aria-busy", "true");
  for (const part of sheet.querySelectorAll("[data-when]")) {
    part.hidden = !part.dataset.when.split(" ").includes(state);
  }
}

/** On a phone the sheets lie below each other: scroll to the one where something happens. */
export function bringIntoView(sheet) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  sheet.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
}

/** Show a trouble and what helps: `again`, `other` (another picture) and `key` are called then. */
export function showTrouble(sheet, trouble, { again, other, key }) {
  const part = fresh(sheet);
  const button = (text, action, kind = "") =>
    make("button", { type: "button", class: `button ${kind}`, onclick: action }, text);
  const helps = {
    wait: [button("Try again", again, "strong")],
    again: [button("Try again", again, "strong")],
    other: [button("Choose another", other, "strong")],
    key: [button("Enter the key", key, "strong")],
  }[trouble.next];
  part.append(
    make("div", { role: "alert" }, heading(trouble.title), make("p", {}, trouble.text)),
    make("div", { class: "row" }, ...helps),
    details(trouble),
  );
}

/** Show that it is tried again in `seconds`. Resolves when the person does not want to wait. */
export function showWait(sheet, trouble, seconds) {
  const known = sheet.querySelector(".trouble [data-left]");
  if (sheet.dataset.state === "error" && known) {
    known.textContent = String(seconds);
    return null;
  }
  const part = fresh(sheet);
  const now = make("button", { type: "button", class: "button" }, "Try now");
  const left = make("span", { "data-left": true }, String(seconds));
  part.append(
    heading(trouble.title),
    make("p", {}, trouble.text),
    make("p", { class: "count", "aria-hidden": "true" }, "Trying again in ", left, " s"),
    make("div", { class: "row" }, now),
  );
  announce(`${trouble.title}. ${trouble.text} Trying again in ${seconds} seconds.`);
  return new Promise((resolve) => { now.addEventListener("click", resolve); });
}

function fresh(sheet) {
  setState(sheet, "error");
  const part = sheet.querySelector(".trouble");
  part.replaceChildren();
  return part;
}

const heading = (text) => make("h3", {}, text);

/** What the service itself said, for those who can use it. */
function details(trouble) {
  if (!trouble.detail) return null;
  const said = trouble.request ? `${trouble.detail} (request ${trouble.request})` : trouble.detail;
  return make("details", {}, make("summary", {}, "What the service said"), make("p", {}, said));
}
