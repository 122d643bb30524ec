// A photo by the camera, in a dialog; where there is none to be had, by whatever the system
// offers for `<input capture>`.

import { byId, onDo } from "./make.js";

const QUALITY = 0.95;
const TITLES = { user: "Look into the camera", environment: "Point the camera at the number" };
const REASONS = {
  NotAllowedError: "The camera is not allowed for this page. Allow it in the browser's settings, or:",
  NotFoundError: "No camera was found on this device.",
  NotReadableError: "Another program is using the camera.",
};

let stream = null;
let facing = "user";
let settle = null; // of the promise that takePhoto() gave

/** The photo as a File, or null where the person changed their mind. `side`: "user" or
 * "environment", the camera to begin with. */
export function takePhoto(side) {
  facing = side;
  const dialog = byId("camera");
  byId("camera-title").textContent = TITLES[side];
  byId("camera-file").setAttribute("capture", side);
  part("live");
  dialog.showModal();
  open();
  return new Promise((resolve) => { settle = resolve; });
}

async function open() {
  stopStream();
  const take = byId("camera").querySelector("[data-do=take]");
  take.disabled = true;
  if (!navigator.mediaDevices?.getUserMedia) {
    refuse("A browser lets a page use the camera only over https, or on this very machine.");
    return;
  }
  try {
    const video = { facingMode: facing, width: { ideal: 1280 }, height: { ideal: 960 } };
    const opened = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    stream = opened;
    if (!byId("camera").open) { // closed while the browser asked
      stopStream();
      return;
    }
    const shown = byId("camera-video");
    shown.classList.toggle("mirrored", facing === "user");
    shown.srcObject = opened;
    await shown.play();
    take.disabled = false;
    take.focus();
    const devices = await navigator.mediaDevices.enumerateDevices();
    const cameras = devices.filter((device) => device.kind === "videoinput");
    byId("camera").querySelector("[data-do=switch]").hidden = cameras.length < 2;
  } catch (error) {
    stopStream();
    if (byId("camera").open) refuse(REASONS[error.name] ?? "The camera could not be started.");
  }
}

function take() {
  const video = byId("camera-video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  const save = (blob) => close(new File([blob], "camera.jpg", { type: blob.type }));
  canvas.toBlob(save, "image/jpeg", QUALITY);
}

function part(name) {
  for (const each of byId("camera").querySelectorAll("[data-part]")) {
    each.hidden = each.dataset.part !== name;
  }
}

function refuse(reason) {
  part("refused");
  byId("camera").querySelector("[data-reason]").textContent = reason;
  byId("camera").querySelector("[data-do=instead]").focus();
}

function stopStream() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  byId("camera-video").srcObject = null;
}

function close(file) {
  const done = settle;
  settle = null;
  stopStream();
  byId("camera").close();
  done?.(file);
}

export function prepareCamera() {
  const input = byId("camera-file");
  byId("camera").addEventListener("close", () => close(null)); // Escape
  input.addEventListener("change", () => {
    const [file] = input.files;
    input.value = "";
    if (file) close(file);
  });
  onDo(byId("camera"), {
    take,
    switch: () => {
      facing = facing === "user" ? "environment" : "user";
      open();
    },
    instead: () => input.click(),
    cancel: () => close(null),
  });
}
