// The faces that were found in a photo.

import { make } from "./make.js";

export function foundIn(photo) {
  if (!photo.found) return "";
  const { count } = photo.found;
  if (count < 2) return "One face found.";
  return photo.boxes.length > 1
    ? `${count} faces found. Choose another if you like.`
    : `${count} faces found; the largest was drawn.`;
}

/** A photo with what lies on it, in the photo's proportions, which are known once it is loaded. */
export function fitted(image, children) {
  const part = make("div", { class: "fit" }, image, ...children);
  whenLoaded(image, () => {
    part.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
  });
  return part;
}

function whenLoaded(image, then) {
  if (image.complete && image.naturalWidth) then();
  else image.addEventListener("load", then);
}

/** A frame round each face: buttons, where there are several; `draw` is called with the photo and
 * which face it is. */
export function boxesOf(photo, image, draw) {
  if (!photo.found) return [];
  const drawn = photo.found.box.join();
  const boxes = photo.boxes.length > 1 ? photo.boxes : [photo.found.box];
  return boxes.map((box, index) => {
    const isDrawn = box.join() === drawn;
    const frame = boxes.length > 1
      ? make("button", {
        type: "button", class: "face-box", "aria-pressed": String(isDrawn),
        "aria-label": `Draw face ${index + 1} of ${boxes.length}`,
        onclick: () => draw(photo, index),
      })
      : make("span", { class: "face-box drawn", "aria-hidden": "true" });
    whenLoaded(image, () => {
      const [x, y, width, height] = box;
      const { naturalWidth: across, naturalHeight: down } = image;
      frame.style.left = `${(100 * x) / across}%`;
      frame.style.top = `${(100 * y) / down}%`;
      frame.style.width = `${(100 * width) / across}%`;
      frame.style.height = `${(100 * height) / down}%`;
    });
    return frame;
  });
}
