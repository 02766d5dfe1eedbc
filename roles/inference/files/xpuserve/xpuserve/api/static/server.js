// The server: which model it has, how it is, and the key that it may ask for.

import * as api from "./api.js";

const POLL_MS = 2000;
const KEY = /^[!-~]+$/; // what may stand in a header
const $ = (id) => document.getElementById(id);

export let model = "";

let polling = null;
let pending = null; // what is to be done once there is a key

// Find out which model is served; a key is asked for where one is needed.
export async function connect() {
  try {
    await refresh();
  } catch (error) {
    if (error.status === 401) askForKey(connect);
    else lose();
    return;
  }
  watch();
}

export async function refresh() {
  model = await api.model();
  $("model").textContent = model;
  document.title = `${model} · chat`;
  $("enter-key").hidden = true;
}

// Look until the service is ready, and say so.
export async function watch() {
  clearTimeout(polling);
  try {
    const state = await api.state();
    if (state === "ready") {
      say("ready");
      if (!model) connect();
      return;
    }
    say(state === "loading" ? "The model is being loaded" : state, "wait");
  } catch {
    lose();
    return;
  }
  polling = setTimeout(watch, POLL_MS);
}

// It does not answer: look until it does.
export function lose() {
  say("The server does not answer. Still trying", "bad");
  clearTimeout(polling);
  polling = setTimeout(watch, POLL_MS);
}

export function say(text, kind = "good") {
  if ($("state").textContent !== text) $("state").textContent = text;
  $("state").className = kind;
}

// `then` is done with the key.
export function askForKey(then) {
  pending = then;
  say("An API key is needed", "bad");
  $("enter-key").hidden = false;
  $("key-problem").hidden = !api.key.get();
  $("key-problem").textContent = "The server does not know this key. Look for a missing character, or ask for another key.";
  $("key").value = "";
  if (!$("key-dialog").open) $("key-dialog").showModal();
  $("key").focus();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = $("key").value.trim();
  if (!KEY.test(key)) {
    $("key-problem").hidden = false;
    $("key-problem").textContent = "A key has visible ASCII characters only, and no spaces.";
    return;
  }
  api.key.set(key);
  $("key").value = "";
  $("key-dialog").close();
  $("question").focus();
  pending?.();
});

$("key-cancel").addEventListener("click", () => $("key-dialog").close());

$("enter-key").addEventListener("click", () => {
  $("key-dialog").showModal();
});
