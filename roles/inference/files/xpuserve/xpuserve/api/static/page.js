// The chat page: what a person does, and what becomes of it.

import * as api from "./api.js";
import * as server from "./server.js";
import * as store from "./store.js";
import * as view from "./view.js";

const NOT_KEPT = "This browser keeps no chats and settings: its storage is full or off";
const $ = (id) => document.getElementById(id);

let chat = store.chats()[0] ?? store.newChat();
let running = null; // the answer under way: { stop(), keep() }

// The conversation.

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("question").value.trim();
  if (!text || running) return;
  $("question").value = "";
  fit();
  chat.messages.push({ role: "user", content: text });
  keep();
  view.forgetProblems();
  view.question(text);
  ask();
});

// Ask for the answer to the last question.
async function ask() {
  if (running) return;
  const asked = chat;
  const abort = new AbortController();
  const answer = new view.Answer();
  const times = { begin: performance.now(), first: 0, last: 0, pieces: 0, tokens: 0 };
  const aside = { thought: "", calls: [] };
  let [text, reason, forgotten, drawing] = ["", "", 0, 0];

  const note = (end = "") => describe(times, end, forgotten);
  const said = () => text || aside.thought || aside.calls.length > 0;
  const message = (end) => ({ role: "assistant", content: text, ...aside, note: note(end) });
  const draw = () => {
    drawing = 0;
    answer.update(text, note(), aside);
  };
  const receive = (event) => {
    times.tokens = event.usage?.completion_tokens ?? times.tokens;
    const choice = event.choices[0];
    reason = choice?.finish_reason ?? reason;
    const { content, reasoning_content: thought, tool_calls: calls } = choice?.delta ?? {};
    if (!content && !thought && !calls) return;
    times.last = performance.now();
    times.first ||= times.last;
    times.pieces++;
    text += content ?? "";
    aside.thought += thought ?? "";
    for (const { index, function: called } of calls ?? []) {
      aside.calls[index] ??= { name: called.name, arguments: "" };
      aside.calls[index].arguments += called.arguments ?? "";
    }
    drawing ||= requestAnimationFrame(draw);
  };
  const finish = (end) => {
    cancelAnimationFrame(drawing);
    if (said()) asked.messages.push(message(end));
    if (said()) keep(asked);
    if (asked !== chat) return;
    if (said()) answer.finish(text, note(end), aside);
    else answer.remove();
    answer.announceEnd(text, end);
  };

  running = {
    stop: () => abort.abort(),
    // The page is left: what came so far stays, as if stopped.
    keep: () => said() && keep({ ...asked, messages: [...asked.messages, message("stopped")] }),
  };
  working(true);
  answer.begin();
  let trouble = null;
  try {
    for (let renamed = false; ; ) {
      try {
        for await (const event of api.answer(body(asked, forgotten), abort.signal)) receive(event);
        break;
      } catch (error) {
        if (error.code === "context_length_exceeded" && forgotten < turns(asked) - 1) forgotten++;
        else if (error.code === "model_not_found" && !renamed) {
          renamed = true; // another model is served now
          await server.refresh();
        } else throw error;
      }
    }
    finish(reason === "length" ? "cut at the longest answer" : "");
  } catch (error) {
    trouble = error.name === "AbortError" ? null : error;
    finish(trouble ? "incomplete" : "stopped");
    if (!trouble && !said() && asked === chat) view.problem("Stopped before the model said anything.", ask);
  }
  running = null;
  working(false);
  if (trouble && asked === chat) explain(trouble, asked, said());
}

// Say what went wrong with the chat that is shown, and what to do about it.
function explain(error, asked, said) {
  const again = () => {
    if (said) chat.messages.pop();
    view.show(chat.messages);
    ask();
  };
  if (error.status === 401) {
    view.problem("The server asks for an API key. Enter one, and the question is asked again.", again);
    server.askForKey(() => {
      server.connect();
      if (asked !== chat) return; // another is shown by now
      view.forgetProblems();
      again();
    });
    return;
  }
  const trace = error.requestId ? ` The server\u2019s journal has more, under request ${error.requestId}.` : "";
  if (error.status === 0) {
    view.problem(
      said
        ? "The connection broke before the answer was complete. Try again once the server is ready."
        : "The server does not answer. Check that it runs and that this device is on its network, then try again.",
      again,
    );
    server.lose();
  } else if (error.status === 429) {
    view.problem("The server is busy: as much waits as may. Your question is kept.", again, error.retryAfter);
  } else if (error.status === 503 || error.code === "shutting_down") {
    view.problem(`The model is not ready: ${error.message}. Your question is kept.`, again, error.retryAfter);
    server.watch();
  } else if (error.status === 504 || error.code === "deadline_exceeded") {
    view.problem(`The server took too long: ${error.message}. Try again later, or set a shorter longest answer.`, again);
  } else if (error.status === 413 || error.code === "context_length_exceeded") {
    view.problem(`This is too long for the model: ${error.message.replace(/\.$/, "")}. Shorten the question, or begin a new chat.`, again);
  } else if (error.status >= 500 || error.code === "engine_error") {
    view.problem(`The server failed: ${error.message}.${trace}`, again);
  } else {
    view.problem(`The server refused: ${error.message}`, again);
  }
}

// The request for a chat's next answer, without its first turns. Questions that got no answer are left out.
function body(chat, forgotten) {
  const { system, temperature, maxTokens } = store.settings();
  const answered = chat.messages.filter(
    (message, n) => message.role === "assistant" || !chat.messages[n + 1] || chat.messages[n + 1].role === "assistant",
  );
  const messages = answered.slice(2 * forgotten).map(({ role, content }) => ({ role, content }));
  if (system) messages.unshift({ role: "system", content: system });
  return { model: server.model, messages, temperature, ...(maxTokens ? { max_tokens: maxTokens } : {}) };
}

function turns(chat) {
  return chat.messages.filter((message) => message.role === "assistant").length + 1;
}

// What stands below an answer. Without the server's count, the speed is one of the pieces that came.
function describe({ begin, first, last, pieces, tokens }, end, forgotten) {
  const parts = [server.model];
  if (tokens) parts.push(`${tokens} token${tokens === 1 ? "" : "s"}`);
  if ((tokens > 1 || pieces > 4) && last > first) {
    const speed = (((tokens || pieces) - 1) * 1000) / (last - first);
    parts.push(`${tokens ? "" : "about "}${speed < 10 ? speed.toFixed(1) : Math.round(speed)} tok/s`);
  }
  if (first) parts.push(`first token after ${((first - begin) / 1000).toFixed(2)} s`);
  if (end) parts.push(end);
  if (forgotten) parts.push(`without the first ${forgotten === 1 ? "turn" : `${forgotten} turns`}: the chat is longer than the model\u2019s context`);
  return parts.join(" · ");
}

function working(on) {
  const focused = document.activeElement;
  $("stop").hidden = !on;
  $("send").hidden = on;
  // The focus goes where its button went.
  if (on && focused === $("send")) $("stop").focus();
  if (!on && (focused === $("stop") || focused === document.body)) $("question").focus();
}

$("stop").addEventListener("click", (event) => {
  if (event.detail < 2) running?.stop(); // the second click of two on Send is none on Stop
});

addEventListener("pagehide", () => running?.keep());

// The chats.

function keep(kept = chat) {
  kept.changed = Date.now();
  if (!store.save(kept)) server.say(NOT_KEPT, "bad");
  list();
}

function list() {
  const chats = store.chats();
  $("no-chats").hidden = chats.length > 0;
  $("list").replaceChildren(
    ...chats.map((other) => {
      const [item, open, remove] = ["li", "button", "button"].map((tag) => document.createElement(tag));
      open.type = remove.type = "button";
      open.className = "open";
      open.textContent = open.title = store.title(other);
      if (other.id === chat.id) open.setAttribute("aria-current", "true");
      open.addEventListener("click", () => turnTo(other));
      remove.className = "remove";
      remove.textContent = "×";
      remove.setAttribute("aria-label", `Delete the chat: ${store.title(other)}`);
      remove.addEventListener("click", () => {
        if (!confirm(`Delete the chat \u201c${store.title(other)}\u201d?`)) return;
        store.forget(other);
        if (other.id === chat.id) turnTo(store.newChat());
        else list();
      });
      item.append(open, remove);
      return item;
    }),
  );
}

function turnTo(other) {
  running?.stop();
  chat = other;
  view.show(chat.messages);
  if (chat.messages.at(-1)?.role === "user") view.problem("This question has no answer yet.", ask);
  list();
  drawer(false);
  $("question").focus();
}

$("new-chat").addEventListener("click", () => turnTo(store.newChat()));

// Chats that another tab changed.
addEventListener("storage", () => {
  if (!running) list();
});

// On a narrow screen the chats are a drawer.
function drawer(open) {
  document.body.classList.toggle("drawer", open);
  $("open-chats").setAttribute("aria-expanded", String(open));
  for (const part of document.querySelector("main").children) part.inert = open;
}

$("open-chats").addEventListener("click", () => {
  drawer(!document.body.classList.contains("drawer"));
});

// Settings.

$("open-settings").addEventListener("click", () => {
  const { system, temperature, maxTokens } = store.settings();
  $("system").value = system;
  $("temperature").value = temperature;
  $("max-tokens").value = maxTokens ?? "";
  $("forget-key").hidden = !api.key.get();
  drawer(false);
  $("settings-dialog").showModal();
});

$("settings-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const maxTokens = $("max-tokens").valueAsNumber || null;
  const settings = { system: $("system").value.trim(), temperature: $("temperature").valueAsNumber, maxTokens };
  if (!store.saveSettings(settings)) server.say(NOT_KEPT, "bad");
  $("settings-dialog").close();
});

$("settings-cancel").addEventListener("click", () => $("settings-dialog").close());

$("forget-key").addEventListener("click", () => {
  api.key.forget();
  $("settings-dialog").close();
  server.connect();
});

$("delete-all").addEventListener("click", () => {
  if (!confirm("Delete all chats of this browser?")) return;
  for (const other of store.chats()) store.forget(other);
  $("settings-dialog").close();
  turnTo(store.newChat());
});

// Keyboard, and copying code.

$("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask").requestSubmit();
});

$("question").addEventListener("input", fit);

function fit() {
  const area = $("question");
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
}

addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || document.querySelector("dialog[open]")) return;
  if (document.body.classList.contains("drawer")) {
    drawer(false);
    $("open-chats").focus();
  } else running?.stop();
});

$("log").addEventListener("click", async ({ target }) => {
  if (!target.matches(".copy")) return;
  const code = target.closest("figure").querySelector("code");
  target.textContent = (await copy(code)) ? "Copied" : "Press Ctrl+C";
  setTimeout(() => (target.textContent = "Copy"), 2000);
});

// Browsers give their clipboard to https and localhost only; elsewhere the text is selected and copied as by hand.
async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  }
}

turnTo(chat);
server.connect();
