// The plate of a house number, drawn on with a pointer or written on by the buttons.

import { byId, make } from "./make.js";

const COLOURS = { // of the plate and of the number on it
  blue: ["#1d3f8f", "#f4f4ee"],
  white: ["#f1efe8", "#20201f"],
  brick: ["#8b4a36", "#efe3c8"],
  green: ["#1f5a41", "#e3c25b"],
};
const THICK = 0.11; // of the side
const SETTLED_MS = 500; // after a stroke: another may follow, as of a 4

const canvas = byId("digit-canvas");
const context = canvas.getContext("2d");
const side = canvas.width;
let strokes = []; // each a list of points
let written = ""; // a digit instead
let colours = COLOURS.blue;
let timer = 0;
let tell = () => {};

function redraw() {
  const [ground, ink] = colours;
  context.fillStyle = ground;
  context.fillRect(0, 0, side, side);
  context.fillStyle = ink;
  context.strokeStyle = ink;
  context.lineWidth = THICK * side;
  context.lineCap = "round";
  context.lineJoin = "round";
  if (written) {
    context.font = `bold ${0.86 * side}px Helvetica, Arial, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    context.fillText(written, side / 2, 0.81 * side);
  }
  for (const [first, ...others] of strokes) {
    context.beginPath();
    context.moveTo(...first);
    // A line to itself is a dot.
    for (const point of others.length ? others : [first]) context.lineTo(...point);
    context.stroke();
  }
}

/** Hand the plate on once nothing more is drawn on it. */
function settle(delay) {
  clearTimeout(timer);
  timer = setTimeout(() => canvas.toBlob(
    (blob) => tell(new File([blob], "drawing.png", { type: blob.type })), "image/png",
  ), delay);
}

export const isBlank = () => strokes.length === 0 && !written;

function write(digit) {
  strokes = [];
  written = digit;
  redraw();
  canvas.setAttribute("aria-label", `Plate with the digit ${digit}`);
  settle(0);
}

export function clearPlate() {
  clearTimeout(timer);
  strokes = [];
  written = "";
  canvas.setAttribute("aria-label", "Empty plate");
  redraw();
}

function pointOf(event) {
  const box = canvas.getBoundingClientRect();
  return [
    ((event.clientX - box.left) / box.width) * side,
    ((event.clientY - box.top) / box.height) * side,
  ];
}

/** `drawn` is called with a File of the plate whenever something new is on it. */
export function preparePlate(drawn) {
  tell = drawn;
  let pointer = null; // which one draws
  canvas.addEventListener("pointerdown", (event) => {
    if (pointer !== null || event.button !== 0) return;
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    clearTimeout(timer);
    if (written) written = "";
    strokes.push([pointOf(event)]);
    canvas.setAttribute("aria-label", "Plate with a drawing");
    redraw();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    // Of all that happened since the last frame: a quick curve stays round.
    const moves = event.getCoalescedEvents?.() ?? [];
    for (const each of moves.length ? moves : [event]) strokes.at(-1).push(pointOf(each));
    redraw();
  });
  const lift = (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    settle(SETTLED_MS);
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  byId("plates").addEventListener("change", (event) => {
    colours = COLOURS[event.target.value];
    redraw();
    if (!isBlank()) settle(0);
  });
  byId("digit-keys").append(
    ...Array.from("0123456789", (digit) =>
      make("button", { type: "button", class: "key-cap", onclick: () => write(digit) }, digit)),
  );
  redraw();
}
