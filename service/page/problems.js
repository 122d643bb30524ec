// What went wrong, in words for whoever sits before the page. `next` says what helps:
//   wait   it passes by itself: ask again after Retry-After
//   again  ask again, when the person wants to
//   other  another picture
//   key    an API key

const PROBLEMS = {
  bad_request: ["The upload did not arrive whole", "Something on the way cut it short. Please send it again.", "again"],
  unauthorized: ["This service wants a key", "Enter the API key above, and it goes on from here.", "key"],
  unknown_model: ["The model is not served any more", "The service has other models now. Reload the page to see which.", "again"],
  unknown_person: ["Nothing is kept of this person", "It has been deleted already, or was never there.", "again"],
  not_found: ["This service does not do that", "The page and the service may be of different versions. Reload the page.", "again"],
  method_not_allowed: ["This service does not do that", "The page and the service may be of different versions. Reload the page.", "again"],
  too_large: ["The picture is too large", "It has more bytes or pixels than the service takes. Try a smaller one.", "other"],
  not_an_image: ["That is not a picture", "The file cannot be read as one. It may be damaged, or of another kind than its name says.", "other"],
  unsupported_format: ["A kind of picture it cannot read", "PNG, JPEG, WebP, GIF, BMP and TIFF work everywhere. Save it as one of these.", "other"],
  no_face: ["No face found", "It needs one that looks towards the camera, not too small and not too dark.", "other"],
  invalid_parameter: ["The service did not accept a choice", "It may know other sizes or faces than this page. Reload the page.", "again"],
  queue_full: ["Busy just now", "More pictures are waiting than it can take.", "wait"],
  rate_limited: ["A little too fast", "The service takes only so many pictures a second from each visitor.", "wait"],
  internal_error: ["The service made a mistake", "That is not your picture's fault. Its log tells more.", "again"],
  not_ready: ["Still warming up", "The service has just started and is loading its models.", "wait"],
  draining: ["The service is restarting", "Another will take over in a moment.", "wait"],
  deadline_exceeded: ["That took too long", "The service gave up after its time limit. It may be less busy soon.", "again"],
  store_unavailable: ["Photos cannot be compared just now", "The service does not reach its database. A single photo works without it.", "wait"],
  network: ["The service does not answer", "Check the connection, or whether the service is running.", "again"],
  unexpected: ["Something went wrong", "The answer was none that this page understands.", "again"],
};

// Short, for the card of one photo among several.
const OF_A_PHOTO = {
  no_face: "No face found",
  not_an_image: "Not a picture",
  unsupported_format: "Unknown kind of picture",
  too_large: "Too large",
};

// Of answers that no service of ours has written: a proxy's, say.
const BY_STATUS = {
  400: "bad_request", 401: "unauthorized", 404: "not_found", 405: "method_not_allowed",
  413: "too_large", 429: "rate_limited", 502: "not_ready", 503: "not_ready",
  504: "deadline_exceeded",
};

/** A request that was not answered as hoped. */
export class Trouble extends Error {
  constructor(code, { detail = "", wait = null, request = "", photos = null } = {}) {
    const known = Object.hasOwn(PROBLEMS, code) ? code : "unexpected";
    super(detail || code);
    [this.title, this.text, this.next] = PROBLEMS[known];
    Object.assign(this, { code, detail, wait, request, photos });
  }
}

/** The Trouble that an answer tells of. */
export async function troubleOf(response) {
  const after = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  const wait = Number.isFinite(after) ? after : null;
  let problem = {};
  if ((response.headers.get("Content-Type") ?? "").startsWith("application/problem+json")) {
    problem = await response.json().catch(() => ({}));
  }
  const code = problem.code ?? BY_STATUS[response.status] ?? "unexpected";
  const { detail, request_id: request, photos } = problem;
  return new Trouble(code, { detail, wait, request, photos });
}

export function shortly(code) {
  return OF_A_PHOTO[code] ?? "Could not be drawn";
}
