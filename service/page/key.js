// The API key: asked for when the service wants one, kept in this tab only.

import { ask, setKey } from "./api.js";
import { announce, byId } from "./make.js";

const form = byId("key-form");
const field = byId("key");

export function askKey() {
  form.hidden = false;
  field.focus();
}

/** `accepted` is called with what GET /models answers to the key. */
export function prepareKey(accepted) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const wrong = byId("key-error");
    wrong.textContent = "";
    field.removeAttribute("aria-invalid");
    setKey(field.value.trim());
    try {
      const { models } = await ask("models");
      form.hidden = true;
      field.value = "";
      announce("The key is accepted.");
      accepted(models);
    } catch (error) {
      setKey("");
      wrong.textContent = error.code === "unauthorized"
        ? "The service does not know this key." : `${error.title}. ${error.text}`;
      field.setAttribute("aria-invalid", "true");
      field.focus();
    }
  });
}
