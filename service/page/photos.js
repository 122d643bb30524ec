// Photos as they come in, and as they are sent.

const SEND_WHOLE = { one: 8 * 2 ** 20, several: 3 * 2 ** 20 }; // bytes of a photo
const LARGE_SIDE = 3072; // of a photo that is not sent whole
const QUALITY = 0.92;

/** One photo: `blob` is sent, and shown at `url`. Then what the service said of it. */
export async function photoOf(file, among = 1) {
  const most = among > 1 ? SEND_WHOLE.several : SEND_WHOLE.one;
  const blob = file.size > most ? await shrink(file, LARGE_SIDE) : file;
  return {
    name: file.name || "photo",
    blob,
    url: URL.createObjectURL(blob),
    status: null, // "ok" or a problem's code
    distance: null,
    found: null, // the face that was drawn: its box, and how many there are
    boxes: [], // of all faces
    face: null, // which one was asked for
    emojis: new Map(), // by size, what the service drew
  };
}

export function forgetPhoto(photo) {
  URL.revokeObjectURL(photo.url);
}

/** A smaller copy, upright as its EXIF says, on white; the file itself where it cannot be read
 * here (HEIC, in most browsers) or would not become smaller. */
export async function shrink(file, side) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return file;
  }
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const blob = await new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", QUALITY); });
  return blob && (scale < 1 || blob.size < file.size) ? blob : file;
}

/** Send a smaller copy of a photo that the service found too large; false where there is none. */
export async function makeSmaller(photo, side) {
  const blob = await shrink(photo.blob, side);
  if (blob === photo.blob) return false;
  URL.revokeObjectURL(photo.url);
  Object.assign(photo, { blob, url: URL.createObjectURL(blob) });
  return true;
}

/** The body of a request: all photos, or with `field` "file" the one. */
export function formOf(photos, field = "files") {
  const form = new FormData();
  for (const photo of photos) form.append(field, photo.blob, photo.name);
  return form;
}

/** Whether a file may be a picture; some systems do not say what kind it is. */
export const mayBePicture = (file) => file.type === "" || file.type.startsWith("image/");

/** Hand on pictures that are dropped or pasted anywhere on the page. `show` gives the sheet that
 * shows where they will go. */
export function onIncoming(receive, sheetOf) {
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  let inside = 0; // elements under the pointer, each of which sends enter and leave
  const mark = (on) => {
    for (const sheet of document.querySelectorAll(".drop")) sheet.classList.remove("over");
    if (on) sheetOf()?.classList.add("over");
  };
  addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    inside += 1;
    mark(true);
  });
  addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    inside = Math.max(0, inside - 1);
    if (inside === 0) mark(false);
  });
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    inside = 0;
    mark(false);
    receive([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0) return; // text, into the field of the key
    event.preventDefault();
    receive(files);
  });
}
