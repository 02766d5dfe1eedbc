// The service's API, as the page needs it.

import { storage } from "./store.js";

const KEY = "xpuserve.key";
const tab = storage("sessionStorage");

// `status` is HTTP's, 0 where there was no answer, or where it broke off.
export class APIError extends Error {
  constructor(status, message, { code = null, retryAfter = 0, requestId = null } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter, requestId });
  }
}

// The key is kept as long as the tab is, and never with the chats; without a storage, as long as the page.
let held = tab.getItem(KEY);

export const key = {
  get: () => held,
  set(value) {
    held = value;
    try {
      tab.setItem(KEY, value);
    } catch {
      // it is asked for again after a reload
    }
  },
  forget() {
    held = null;
    tab.removeItem(KEY);
  },
};

// The name of the model that is served.
export async function model() {
  const response = await call("v1/models");
  return (await response.json()).data[0].id;
}

// "ready", or what the service says that it is doing; throws if it does not answer.
export async function state() {
  const response = await request("ready");
  try {
    return (await response.json()).status;
  } catch {
    throw new APIError(response.status, "the server does not answer");
  }
}

// The events of one answer. Leaving the loop over them, or aborting the signal, stops the server's work.
export async function* answer(body, signal) {
  const streamed = { ...body, stream: true, stream_options: { include_usage: true } };
  const options = { method: "POST", body: JSON.stringify(streamed), signal };
  const response = await call("v1/chat/completions", options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const requestId = response.headers.get("X-Request-Id");
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await read(reader);
      if (done) throw broken();
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data: ")) continue;
        const data = line.slice("data: ".length);
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new APIError(response.status, event.error.message, { code: event.error.code, requestId });
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // what is broken already need not be cancelled
  }
}

async function call(path, options = {}) {
  const response = await request(path, options);
  if (response.ok) return response;
  let problem = {};
  try {
    problem = (await response.json()).error ?? {};
  } catch {
    // a proxy's page, not the service's answer
  }
  throw new APIError(response.status, problem.message ?? response.statusText, {
    code: problem.code,
    retryAfter: Number(response.headers.get("Retry-After")) || 0,
    requestId: response.headers.get("X-Request-Id"),
  });
}

async function request(path, options = {}) {
  const headers = options.body ? { "Content-Type": "application/json" } : {};
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  try {
    return await fetch(path, { ...options, headers, cache: "no-store", redirect: "error" });
  } catch (error) {
    throw aborted(error) ? error : new APIError(0, "the server does not answer");
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    throw aborted(error) ? error : broken();
  }
}

const broken = () => new APIError(0, "the connection broke before the answer was complete");

const aborted = (error) => error.name === "AbortError";
