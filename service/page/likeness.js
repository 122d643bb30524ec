// Eq. 8's distance in words, with what is usual beside it.

import { make } from "./make.js";

const NEAR = 0.9; // of the average: nearer than this is worth saying
const FAR = 1.1;

/** The model's average distance over pictures that it never saw, or null. */
export const averageOf = (card) => card?.metrics?.f_distance_mean?.value ?? null;

/** A distance in three digits, or a difference as precisely as of distances `like` this one. */
export const shown = (distance, like = distance) =>
  distance.toFixed(like < 1 ? 3 : like < 10 ? 2 : 1);

export function inWords(distance, average) {
  if (average === null) return "smaller is closer";
  if (distance < NEAR * average) return "closer than average";
  return distance > FAR * average ? "further than average" : "about average";
}

/** Fill `part` with the number, its meaning and a scale. */
export function showLikeness(part, distance, average) {
  if (distance === null) {
    part.replaceChildren();
    return;
  }
  const children = [
    make("p", {},
      make("span", { class: "term" }, "Likeness distance "),
      make("strong", { "data-distance": true }, shown(distance)),
      make("span", { class: "verdict" }, inWords(distance, average)),
    ),
  ];
  if (average !== null) children.push(scale(distance, average));
  part.replaceChildren(...children);
}

/** From 0 to twice the average, which is marked. Seen only: the words say the same. */
function scale(distance, average) {
  const bar = make("div", { class: "scale", "aria-hidden": "true" }, make("i"), make("b"));
  bar.style.setProperty("--at", `${Math.min(100, (50 * distance) / average)}%`);
  const ends = make("p", { class: "ends" },
    make("span", {}, "0, the same"),
    make("span", {}, `average ${shown(average)}`),
    make("span", {}, "further"),
  );
  return make("div", {}, bar, ends);
}
