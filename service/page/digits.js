// The tab of digits: a picture or a drawing in, G of it out.

import { ask, patiently, pictureOf } from "./api.js";
import { takePhoto } from "./camera.js";
import { fitted } from "./found.js";
import { averageOf, inWords, showLikeness, shown } from "./likeness.js";
import { announce, byId, onDo } from "./make.js";
import { forgetPhoto, formOf, makeSmaller, mayBePicture, photoOf } from "./photos.js";
import { clearPlate, preparePlate } from "./plate.js";
import { Trouble } from "./problems.js";
import { copy, offer } from "./save.js";
import { thumbnail } from "./several.js";
import { setState, showTrouble, showWait } from "./sheet.js";

const SMALLER_SIDE = 1024; // second try of what the service found too large

const input = byId("digit-in");
const output = byId("digit-out");
const state = {
  cards: [], // of the models to choose from
  card: null,
  askKey: () => {},
  picture: null,
  run: new AbortController(),
  url: "", // of what is shown
};

/** Take in the first picture of some files. */
export async function receiveDigits(files) {
  const file = files.find(mayBePicture);
  if (!file) {
    if (files.length) fail(new Trouble("not_an_image"), begin());
    return;
  }
  if (!(await hold(file))) return;
  const image = thumbnail(state.picture, `Picture ${state.picture.name}`);
  byId("digit-photo").replaceChildren(fitted(image, []));
  byId("digit-name").textContent = state.picture.name;
  setState(input, "filled");
  draw();
}

/** Keep a file as the picture; false where another came meanwhile. */
async function hold(file) {
  const run = begin();
  const picture = await photoOf(file);
  if (run !== state.run) {
    forgetPhoto(picture);
    return false;
  }
  if (state.picture) forgetPhoto(state.picture);
  state.picture = picture;
  return true;
}

async function draw() {
  if (!state.picture) return;
  const run = begin();
  const { picture, card } = state;
  const words = new URLSearchParams();
  if (card) {
    words.set("model", card.name);
    if (card.graphs.distance) words.set("distance", "true");
  }
  const call = () =>
    ask(`transfer?${words}`, { method: "POST", body: formOf([picture], "file"), signal: run.signal });
  const waiting = (trouble, seconds) =>
    run === state.run ? showWait(output, trouble, seconds) : null;
  // What was drawn before stays until there is something new: a drawing grows stroke by stroke.
  if (output.dataset.state !== "result") setState(output, "working");
  try {
    let answer;
    try {
      answer = await patiently(call, run.signal, waiting);
    } catch (error) {
      if (error.code !== "too_large" || !(await makeSmaller(picture, SMALLER_SIDE))) throw error;
      answer = await patiently(call, run.signal, waiting);
    }
    if (run === state.run) finish(answer);
  } catch (error) {
    fail(error, run);
  }
}

function finish(answer) {
  const blob = pictureOf(answer);
  URL.revokeObjectURL(state.url);
  state.url = URL.createObjectURL(blob);
  const image = byId("digit-result");
  image.src = state.url;
  image.alt = `What ${answer.model} makes of ${state.picture.name}`;
  const average = averageOf(state.card);
  showLikeness(byId("digit-likeness"), answer.f_distance, average);
  offer(output, blob, state.url, `${answer.model.split("@")[0]}.png`);
  setState(output, "result");
  const told = answer.f_distance === null
    ? "" : ` Likeness distance ${shown(answer.f_distance)}, ${inWords(answer.f_distance, average)}.`;
  announce(`The picture is there.${told}`);
}

function begin() {
  state.run.abort();
  state.run = new AbortController();
  return state.run;
}

function fail(error, run) {
  if (run !== state.run) return;
  const trouble = error instanceof Trouble ? error : new Trouble("unexpected", { detail: `${error}` });
  const other = () => byId("digit-file").click();
  showTrouble(output, trouble, { again: draw, other, key: state.askKey });
  if (trouble.next === "key") state.askKey();
}

function clear() {
  begin();
  clearPlate();
  if (state.picture) forgetPhoto(state.picture);
  state.picture = null;
  setState(output, "empty");
}

function drawInstead() {
  clear();
  setState(input, "drawing");
  byId("digit-keys").querySelector("button").focus();
}

async function shoot() {
  const file = await takePhoto("environment");
  if (file) receiveDigits([file]);
}

/** What failed for want of a key, once there is one. */
export function repeatDigits() {
  if (output.dataset.state === "error") draw();
}

/** Serve with one of these models, the first to begin with. */
export function serveDigits(cards) {
  state.cards = cards;
  state.card = cards[0] ?? null;
  const choice = byId("digit-model");
  choice.replaceChildren(...cards.map((card) => new Option(card.name, card.name)));
  byId("digit-model-row").hidden = cards.length < 2;
  tellOfModel();
}

function tellOfModel() {
  const part = byId("digits");
  const { card } = state;
  if (!card) return;
  part.querySelector("[data-source]").textContent = card.source_domain;
  part.querySelector("[data-target]").textContent = card.target_domain;
  part.querySelector("[data-limits]").textContent = card.limits;
}

export function prepareDigits(askKey) {
  state.askKey = askKey;
  const file = byId("digit-file");
  file.addEventListener("change", () => {
    const files = [...file.files];
    file.value = "";
    receiveDigits(files);
  });
  byId("digit-model").addEventListener("change", (event) => {
    state.card = state.cards.find((card) => card.name === event.target.value);
    tellOfModel();
    draw();
  });
  onDo(input, { choose: () => file.click(), camera: shoot, clear, draw: drawInstead });
  onDo(output, { copy });
  preparePlate(async (drawing) => {
    if (await hold(drawing)) draw();
  });
}
