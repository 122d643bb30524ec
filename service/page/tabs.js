// The tabs, as WAI-ARIA describes them: arrow keys move, the one that has the focus is shown.

import { byId } from "./make.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const panelOf = (tab) => byId(tab.getAttribute("aria-controls"));

/** The id of the panel that is shown. */
export const shownPanel = () =>
  tabs.find((tab) => tab.getAttribute("aria-selected") === "true").getAttribute("aria-controls");

export function showTab(tab) {
  for (const each of tabs) {
    each.setAttribute("aria-selected", String(each === tab));
    each.tabIndex = each === tab ? 0 : -1;
    panelOf(each).hidden = each !== tab;
  }
}

/** Say why a tab does nothing, or with null that it does. It can still be opened, to read that. */
export function setAbsent(panel, reason) {
  const part = byId(panel);
  const tab = byId(`tab-${panel}`);
  if (reason) tab.setAttribute("aria-disabled", "true");
  else tab.removeAttribute("aria-disabled");
  part.querySelector("[data-absent]").textContent = reason ?? "";
  part.querySelector("[data-absent]").hidden = reason === null;
  part.querySelector("[data-present]").hidden = reason !== null;
}

export function prepareTabs() {
  const steps = { ArrowRight: 1, ArrowLeft: -1 };
  for (const [index, tab] of tabs.entries()) {
    const go = (to) => {
      showTab(to);
      to.focus();
      history.replaceState(null, "", `#${to.getAttribute("aria-controls")}`);
    };
    tab.addEventListener("click", () => go(tab));
    tab.addEventListener("keydown", (event) => {
      const ends = { Home: 0, End: tabs.length - 1 };
      const step = steps[event.key];
      const to = step === undefined ? ends[event.key] : (index + step + tabs.length) % tabs.length;
      if (to === undefined) return;
      event.preventDefault();
      go(tabs[to]);
    });
  }
  const named = tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash);
  if (named) showTab(named);
}
