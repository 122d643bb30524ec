// What was drawn, taken along: as a file, or on the clipboard.

import { announce } from "./make.js";

const DONE_MS = 2000;

/** Let a sheet's Download and Copy be of this picture. */
export function offer(sheet, blob, url, name) {
  const link = sheet.querySelector("[data-do=download]");
  link.href = url;
  link.download = name;
  const button = sheet.querySelector("[data-do=copy]");
  button.picture = blob;
  const able = Boolean(navigator.clipboard?.write) && typeof ClipboardItem === "function";
  button.disabled = !able;
  button.title = able ? "" : "Browsers copy pictures only over https, or on this very machine";
}

/** Copy what offer() gave the button. */
export async function copy(button) {
  const picture = button.picture;
  try {
    await navigator.clipboard.write([new ClipboardItem({ [picture.type]: picture })]);
    say(button, "Copied");
  } catch {
    say(button, "Not copied");
    announce("The browser does not let this page copy. Use Download instead.");
    return;
  }
  announce("Copied to the clipboard.");
}

function say(button, text) {
  button.textContent = text;
  clearTimeout(button.timer);
  button.timer = setTimeout(() => { button.textContent = "Copy"; }, DONE_MS);
}
