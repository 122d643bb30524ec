// Where the page starts: which models are served, and what goes to which tab.

import { ask } from "./api.js";
import { prepareCamera } from "./camera.js";
import { prepareDigits, receiveDigits, repeatDigits, serveDigits } from "./digits.js";
import { prepareFaces, receiveFaces, repeatFaces, serveFaces } from "./faces.js";
import { askKey, prepareKey } from "./key.js";
import { byId } from "./make.js";
import { onIncoming } from "./photos.js";
import { prepareTabs, setAbsent, shownPanel, showTab } from "./tabs.js";

const NO_FACES = "This service has no model that draws emoji. Its other models are in the other tab.";
const NO_DIGITS = "This service has no model of digits, only of faces. They are in the other tab.";

/** Fit the page to the served models, of which GET /models gives the cards. */
function serve(models) {
  const faces = models.filter((card) => card.alignment);
  // The default one first.
  const others = newestOf(models.filter((card) => !card.alignment))
    .sort((a, b) => Number(b.default) - Number(a.default));
  const names = new Set(faces.map((card) => card.name));
  const face = faces.find((card) => card.name === "emoji") ?? faces[0];
  // Of several the service's own setting decides; the only one is named, whatever that says.
  serveFaces(face, names.size === 1 ? face.name : null);
  serveDigits(others);
  setAbsent("faces", faces.length ? null : NO_FACES);
  setAbsent("digits", others.length ? null : NO_DIGITS);
  if (face) byId("faces").querySelector("[data-limits]").textContent = face.limits;
  if (!faces.length && others.length && !location.hash) showTab(byId("tab-digits"));
}

/** One card of each name: of several versions requests get the newest, and so does the page. */
function newestOf(cards) {
  return [...new Map(cards.map((card) => [card.name, card])).values()];
}

async function start() {
  for (const part of document.querySelectorAll("[data-host]")) part.textContent = location.host;
  prepareTabs();
  prepareCamera();
  prepareFaces(askKey);
  prepareDigits(askKey);
  prepareKey((models) => {
    serve(models);
    repeatFaces();
    repeatDigits();
  });
  const ways = { faces: receiveFaces, digits: receiveDigits };
  const isAbsent = () => byId(shownPanel()).querySelector("[data-present]").hidden;
  onIncoming(
    (files) => { if (!isAbsent()) ways[shownPanel()](files); },
    () => byId(shownPanel()).querySelector(".drop"),
  );
  try {
    serve((await ask("models")).models);
  } catch (error) {
    // Of anything else the first photo will tell.
    if (error.code === "unauthorized") askKey();
  }
}

await start();
byId("main").removeAttribute("aria-busy");
