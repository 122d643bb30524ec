// Elements of the page: finding and making them.

export const byId = (id) => document.getElementById(id);

/** `make("button", { type: "button" }, "Text", child)`; what is undefined or null is left out. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Call what a part's buttons name with data-do. */
export function onDo(part, actions) {
  part.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    actions[button?.dataset.do]?.(button);
  });
}

/** Tell a screen reader; what is seen is shown elsewhere. */
export function announce(text) {
  const status = byId("status");
  status.textContent = "";
  // A text that was there before is not read again, so it goes in as a new one.
  requestAnimationFrame(() => { status.textContent = text; });
}
