// Requests to the service that sent this page. They carry the API key, where one was entered;
// whatever goes wrong is a Trouble.

import { Trouble, troubleOf } from "./problems.js";

const STORED = "dtn-key"; // of sessionStorage: gone with the tab
const PATIENCE_MS = 120_000; // longer than any deadline that a person would wait for
const MOST_RETRIES = 5;
const LONGEST_WAIT_S = 60;

export function setKey(key) {
  if (key) sessionStorage.setItem(STORED, key);
  else sessionStorage.removeItem(STORED);
}

/** The answer of the service. `path` is relative to the page, which may lie under a prefix. */
export async function ask(path, { method = "GET", body = null, signal = null, keepalive = false } = {}) {
  const headers = { Accept: "application/json" };
  const key = sessionStorage.getItem(STORED);
  if (key) headers["X-API-Key"] = key;
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), PATIENCE_MS);
  const give_up = () => limit.abort();
  signal?.addEventListener("abort", give_up);
  if (signal?.aborted) give_up();
  try {
    const url = new URL(path, document.baseURI);
    const response = await fetch(url, { method, headers, body, keepalive, signal: limit.signal });
    if (!response.ok) throw await troubleOf(response);
    return response.status === 204 ? null : await response.json();
  } catch (error) {
    if (error instanceof Trouble) throw error;
    signal?.throwIfAborted();
    throw new Trouble("network", { detail: String(error) });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", give_up);
  }
}

/** What `call` gives; after a trouble that passes by itself it is called again.
 *
 * `waiting(trouble, seconds)` is told each second how long it still takes, and may return a
 * promise which ends the wait.
 */
export async function patiently(call, signal, waiting) {
  for (let retry = 0; ; retry++) {
    try {
      return await call();
    } catch (error) {
      const passes = error instanceof Trouble && error.next === "wait" && retry < MOST_RETRIES;
      const seconds = Math.max(1, error.wait ?? 2 ** retry);
      if (!passes || seconds > LONGEST_WAIT_S) throw error;
      await countDown(seconds, signal, (left) => waiting(error, left));
    }
  }
}

function countDown(seconds, signal, tell) {
  return new Promise((resolve, reject) => {
    let left = seconds;
    const end = (settle) => {
      clearInterval(timer);
      signal.removeEventListener("abort", stop);
      settle();
    };
    const stop = () => end(() => reject(signal.reason));
    const step = () => tell(left)?.then(() => end(resolve));
    const timer = setInterval(() => {
      left -= 1;
      if (left <= 0) end(resolve);
      else step();
    }, 1000);
    signal.addEventListener("abort", stop);
    step();
  });
}

/** A picture out of an answer's base64, to be shown, saved and copied. */
export function pictureOf(answer) {
  const bytes = Uint8Array.from(atob(answer.image), (each) => each.charCodeAt(0));
  return new Blob([bytes], { type: answer.media_type });
}
