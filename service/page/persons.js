// Several photos of one person (Eq. 8). The service compares them under a random name, with its
// best emoji kept meanwhile; afterwards that is deleted.

import { ask, patiently } from "./api.js";
import { formOf } from "./photos.js";
import { Trouble } from "./problems.js";

const RETRIES = 4;
const FIRST_PAUSE_MS = 500;

const kept = new Set(); // names of which the service may still keep something

function randomName() {
  // randomUUID() is there only over https; this is everywhere.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `page-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** What the service says of the photos; `forgotten` of it resolves to whether nothing is kept.
 *
 * An answer that is no longer wanted is waited for all the same: what the service keeps must be
 * there before it can be deleted. Only the pauses between tries end by `signal`.
 */
export async function compare(photos, query, signal, waiting) {
  const name = randomName();
  const call = async () => {
    kept.add(name);
    try {
      return await ask(`persons/${name}/emoji?${query}`, { method: "POST", body: formOf(photos) });
    } catch (error) {
      // Of these the service has stored nothing; after others it may have.
      if (error.photos || error.next === "wait" || error.next === "key") kept.delete(name);
      throw error;
    }
  };
  let forgotten = null;
  try {
    const answer = await patiently(call, signal, waiting);
    forgotten = forget(name);
    return { answer, forgotten };
  } finally {
    if (forgotten === null && kept.has(name)) forget(name);
  }
}

/** Whether the service keeps nothing of the name, after some tries. */
export async function forget(name) {
  for (let retry = 0; retry < RETRIES; retry++) {
    try {
      await ask(`persons/${name}`, { method: "DELETE", keepalive: true });
      kept.delete(name);
      return true;
    } catch (error) {
      if (error instanceof Trouble && error.code === "unknown_person") {
        kept.delete(name);
        return true;
      }
    }
    await new Promise((resolve) => { setTimeout(resolve, FIRST_PAUSE_MS * 2 ** retry); });
  }
  return false;
}

/** Try again for all that could not be deleted. */
export async function forgetAll() {
  const done = await Promise.all([...kept].map(forget));
  return done.every(Boolean);
}

// Who closes the page while photos are compared wants nothing to stay behind either.
addEventListener("pagehide", () => {
  for (const name of kept) {
    ask(`persons/${name}`, { method: "DELETE", keepalive: true }).catch(() => {});
  }
});
