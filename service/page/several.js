// The list of several photos: each with its distance, the best marked.

import { byId, make } from "./make.js";
import { shown } from "./likeness.js";
import { shortly } from "./problems.js";

/** Draw the list anew. `best` and `selected` are photos; `choose` and `remove` are called with
 * one. The focus stays where it is. */
export function showSeveral(photos, { best, selected, working, choose, remove }) {
  const list = byId("several-list");
  byId("several").hidden = photos.length < 2;
  const focused = document.activeElement?.closest("#several-list [data-focus]")?.dataset.focus;
  list.replaceChildren(
    ...photos.map((photo, index) => {
      const usable = photo.status === "ok";
      const isBest = photo === best;
      const words = usable ? `distance ${shown(photo.distance)}` : wordsOf(photo, working);
      const pick = make("button", {
        type: "button",
        class: "pick",
        disabled: !usable,
        "aria-pressed": String(photo === selected),
        "data-focus": `pick-${index}`,
        onclick: () => choose(photo),
      },
        thumbnail(photo),
        make("span", { class: "name" }, photo.name),
        make("span", { class: usable ? "value" : "value none" }, words),
        usable ? make("span", { class: "further" }, furtherThan(best, photo)) : null,
        isBest ? make("span", { class: "badge" }, "Best") : null,
      );
      const drop = make("button", {
        type: "button",
        class: "remove",
        "aria-label": `Remove ${photo.name}`,
        "data-focus": `remove-${index}`,
        onclick: () => remove(photo),
      }, "×");
      return make("li", { class: isBest ? "best" : null, "data-status": photo.status }, pick, drop);
    }),
  );
  const again = focused && list.querySelector(`[data-focus="${focused}"]:not(:disabled)`);
  if (again) again.focus();
}

function wordsOf(photo, working) {
  if (photo.status === null) return working ? "Looking" : "Not compared";
  return shortly(photo.status);
}

/** Distances of one person lie close together: their differences are what tells. */
function furtherThan(best, photo) {
  if (!best) return null;
  return photo === best ? "the smallest" : `${shown(photo.distance - best.distance, best.distance)} further`;
}

/** What is sent; a plain tile where this browser cannot show it (HEIC). */
export function thumbnail(photo, alt = "") {
  const image = make("img", { src: photo.url, alt });
  image.addEventListener("error", () => {
    image.replaceWith(make("span", { class: "unseeable" }, "No preview"));
  });
  return image;
}
