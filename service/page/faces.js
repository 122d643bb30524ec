// The tab of faces: photos in, the emoji of the best out.

import { ask, patiently, pictureOf } from "./api.js";
import { takePhoto } from "./camera.js";
import { boxesOf, fitted, foundIn } from "./found.js";
import { averageOf, inWords, showLikeness, shown } from "./likeness.js";
import { announce, byId, make, onDo } from "./make.js";
import { compare, forgetAll } from "./persons.js";
import { forgetPhoto, formOf, makeSmaller, mayBePicture, photoOf } from "./photos.js";
import { Trouble } from "./problems.js";
import { copy, offer } from "./save.js";
import { showSeveral, thumbnail } from "./several.js";
import { bringIntoView, setState, showTrouble, showWait } from "./sheet.js";

const MOST_PHOTOS = 32; // in one request
const SMALLER_SIDE = 2048; // second try of what the service found too large

const input = byId("face-in");
const output = byId("face-out");
const state = {
  card: null, // of the model, as GET /models gives it
  model: null, // its name, where a request has to say it
  askKey: () => {},
  photos: [],
  best: null, // photo of the smallest distance
  selected: null, // photo whose emoji is shown
  size: 256,
  run: new AbortController(), // ends what is under way
  working: false,
  repeat: () => {}, // what failed last
};

const query = (more = {}) => {
  const words = new URLSearchParams({ size: state.size, ...more });
  if (state.model) words.set("model", state.model);
  return words;
};

/** Take files in, instead of the photos that are there or, with `add`, beside them. */
export async function receiveFaces(files, add = false) {
  const pictures = files.filter(mayBePicture);
  const run = begin();
  if (pictures.length === 0) {
    if (files.length) fail(new Trouble("not_an_image"), run, () => pick(add));
    return;
  }
  const room = MOST_PHOTOS - (add ? state.photos.length : 0);
  const taken = pictures.slice(0, room);
  const among = taken.length + (add ? state.photos.length : 0);
  if (!add) clear();
  work("Reading");
  const fresh = await Promise.all(taken.map((file) => photoOf(file, among)));
  if (run !== state.run) {
    fresh.forEach(forgetPhoto);
    return;
  }
  state.photos.push(...fresh);
  byId("several-left").textContent = taken.length < pictures.length
    ? `Only ${MOST_PHOTOS} photos can be compared at once; the others were left out.` : "";
  draw();
}

/** Draw the emoji of all photos that are there. */
async function draw() {
  const run = begin();
  state.best = null;
  state.selected = state.photos[0];
  show();
  work(state.photos.length > 1 ? `Comparing ${state.photos.length} photos` : "Drawing");
  bringIntoView(output);
  try {
    if (state.photos.length > 1) await drawBest(run);
    else await drawOne(state.selected, run);
    if (run === state.run) finish(run);
  } catch (error) {
    fail(error, run, draw);
  }
}

async function drawOne(photo, run) {
  const face = photo.face === null ? {} : { face: photo.face };
  const call = () =>
    ask(`emoji?${query(face)}`, { method: "POST", body: formOf([photo], "file"), signal: run.signal });
  let answer;
  try {
    answer = await patiently(call, run.signal, waiting(run));
  } catch (error) {
    if (error.code !== "too_large" || !(await makeSmaller(photo, SMALLER_SIDE))) throw error;
    answer = await patiently(call, run.signal, waiting(run));
  }
  photo.status = "ok";
  photo.distance = answer.f_distance;
  photo.found = answer.face;
  photo.boxes = answer.faces;
  photo.emojis.set(state.size, emojiOf(answer));
}

async function drawBest(run) {
  const photos = [...state.photos];
  const reported = (reports) => reports?.forEach((report, index) => {
    Object.assign(photos[index], {
      status: report.status, distance: report.f_distance, found: report.face,
    });
  });
  let compared;
  try {
    compared = await compare(photos, query(), run.signal, waiting(run));
  } catch (error) {
    reported(error.photos);
    throw error;
  }
  if (run !== state.run) return;
  const { answer, forgotten } = compared;
  reported(answer.photos);
  // null would be a name that somebody else had used, which no random one ever is.
  state.best = photos[answer.chosen ?? 0];
  state.selected = state.best;
  state.best.emojis.set(state.size, emojiOf(answer));
  tellForgotten(forgotten);
}

async function tellForgotten(forgotten) {
  const told = byId("several-kept");
  told.textContent = "";
  if (await forgotten) {
    told.textContent = "Compared and deleted: the service keeps nothing of these photos.";
    return;
  }
  const again = make("button", { type: "button", class: "link" }, "Delete it now");
  again.addEventListener("click", () => tellForgotten(forgetAll()));
  told.replaceChildren("The best emoji could not be deleted from the service yet. ", again);
}

const emojiOf = (answer) => {
  const blob = pictureOf(answer);
  return { blob, url: URL.createObjectURL(blob), distance: answer.f_distance, model: answer.model };
};

/** Show a photo's emoji in the size that is chosen, drawing it where that was not done. */
async function select(photo) {
  const run = begin();
  state.selected = photo;
  show();
  try {
    if (!photo.emojis.has(state.size)) {
      work("Drawing");
      await drawOne(photo, run);
    }
    if (run === state.run) finish(run);
  } catch (error) {
    fail(error, run, () => select(photo));
  }
}

function begin() {
  state.run.abort();
  state.run = new AbortController();
  state.working = false;
  return state.run;
}

const waiting = (run) => (trouble, seconds) =>
  run === state.run ? showWait(output, trouble, seconds) : null;

function work(text) {
  state.working = true;
  byId("face-working").textContent = text;
  // Of a photo that has an emoji already it stays, and with it what has the focus: the sizes, say.
  if (state.selected?.status === "ok" && output.dataset.state === "result") {
    output.setAttribute("aria-busy", "true");
  } else {
    setState(output, "working");
  }
  announce(text);
  showList();
}

function finish() {
  const photo = state.selected;
  const emoji = photo.emojis.get(state.size);
  state.working = false;
  const average = averageOf(state.card);
  const image = byId("face-emoji");
  image.src = emoji.url;
  image.alt = `Emoji drawn from ${photo.name}`;
  showLikeness(byId("face-likeness"), emoji.distance, average);
  offer(output, emoji.blob, emoji.url, `emoji-${state.size}.png`);
  setState(output, "result");
  show();
  const of = state.photos.length > 1 ? `, from ${photo.name}` : "";
  const told = emoji.distance === null
    ? "" : ` Likeness distance ${shown(emoji.distance)}, ${inWords(emoji.distance, average)}.`;
  announce(`The emoji is there${of}.${told}`);
}

function fail(error, run, repeat) {
  if (run !== state.run) return;
  state.working = false;
  state.repeat = repeat;
  const trouble = error instanceof Trouble ? error : new Trouble("unexpected", { detail: `${error}` });
  show();
  showTrouble(output, trouble, { again: repeat, other: () => pick(false), key: state.askKey });
  if (trouble.next === "key") state.askKey();
}

/** The photo with the faces found in it, and the list of several. */
function show() {
  setState(input, state.photos.length ? "filled" : "empty");
  const photo = state.selected;
  if (photo) {
    const image = thumbnail(photo, `Photo ${photo.name}`);
    byId("face-photo").replaceChildren(fitted(image, boxesOf(photo, image, drawFace)));
    byId("face-found").textContent = foundIn(photo);
  }
  showList();
}

function showList() {
  const { photos, best, selected, working } = state;
  showSeveral(photos, { best, selected, working, choose: select, remove });
}

function drawFace(photo, index) {
  photo.face = index;
  forgetEmojis(photo);
  select(photo);
  byId("face-out-title").focus({ preventScroll: true }); // its button is drawn anew
}

function forgetEmojis(photo) {
  for (const emoji of photo.emojis.values()) URL.revokeObjectURL(emoji.url);
  photo.emojis.clear();
}

function remove(photo) {
  forgetEmojis(photo);
  forgetPhoto(photo);
  state.photos = state.photos.filter((each) => each !== photo);
  for (const each of state.photos) each.face = null;
  draw();
  byId("face-out-title").focus({ preventScroll: true });
}

function clear() {
  state.photos.forEach(forgetEmojis);
  state.photos.forEach(forgetPhoto);
  Object.assign(state, { photos: [], best: null, selected: null });
  byId("several-kept").textContent = "";
}

function reset() {
  begin();
  clear();
  setState(output, "empty");
  show();
  input.querySelector("[data-do=choose]").focus();
  announce("Cleared.");
}

function pick(add) {
  const file = byId("face-file");
  file.adding = add;
  file.click();
}

async function shoot() {
  const file = await takePhoto("user");
  if (file) receiveFaces([file], state.photos.length > 0);
}

async function sample() {
  const answer = await fetch(new URL("page/astronaut.jpg", document.baseURI)).catch(() => null);
  if (!answer?.ok) {
    fail(new Trouble("network"), begin(), sample);
    return;
  }
  receiveFaces([new File([await answer.blob()], "astronaut.jpg", { type: "image/jpeg" })]);
}

/** What failed for want of a key, once there is one. */
export function repeatFaces() {
  if (output.dataset.state === "error") state.repeat();
}

/** Serve with this model: its card, and the name that requests have to give, if any. */
export function serveFaces(card, model) {
  Object.assign(state, { card, model });
}

export function prepareFaces(askKey) {
  state.askKey = askKey;
  const file = byId("face-file");
  file.addEventListener("change", () => {
    const files = [...file.files];
    file.value = "";
    if (files.length) receiveFaces(files, file.adding);
  });
  onDo(input, { choose: () => pick(false), add: () => pick(true), camera: shoot, reset, sample });
  onDo(output, { copy });
  byId("sizes").addEventListener("change", (event) => {
    state.size = Number(event.target.value);
    if (state.selected?.status === "ok") select(state.selected);
  });
}
