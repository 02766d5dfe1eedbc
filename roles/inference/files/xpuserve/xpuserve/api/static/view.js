// The conversation as elements.

import { render } from "./markdown.js";

const log = document.getElementById("log");
const announced = document.getElementById("announced");

// Show a whole chat, or how to begin one.
export function show(messages) {
  log.replaceChildren();
  if (!messages.length) {
    const hint = document.createElement("p");
    hint.className = "welcome";
    hint.textContent = "Ask something. The model sees this whole chat each time.";
    log.append(hint);
  }
  for (const message of messages) {
    if (message.role === "user") question(message.content);
    else new Answer().finish(message.content, message.note, message);
  }
  log.scrollTop = log.scrollHeight;
}

export function question(text) {
  log.querySelector(".welcome")?.remove();
  const article = turn("You", "question");
  const paragraph = document.createElement("p");
  paragraph.textContent = text;
  article.append(paragraph);
  log.scrollTop = log.scrollHeight;
}

// One answer, while it comes and after. A screen reader is told each paragraph when it is complete.
export class Answer {
  constructor() {
    this.article = turn("Model", "answer");
    this.aside = document.createElement("div"); // what the model thought and called, folded
    this.text = document.createElement("div");
    this.text.className = "text";
    this.note = document.createElement("p");
    this.note.className = "note";
    this.article.append(this.aside, this.text, this.note);
    this.spoken = 0;
  }

  begin() {
    this.article.setAttribute("aria-busy", "true");
    announced.replaceChildren();
    announce("The model answers.");
    log.scrollTop = log.scrollHeight;
  }

  update(text, note, aside) {
    this.show(text, note, aside);
    const end = text.lastIndexOf("\n") + 1;
    if (end > this.spoken) this.speak(text, end);
  }

  finish(text, note, aside) {
    this.article.removeAttribute("aria-busy");
    this.show(text, note, aside);
  }

  // The rest, and how it ended.
  announceEnd(text, note) {
    this.speak(text, text.length);
    announce(note);
  }

  remove() {
    this.article.remove();
  }

  show(text, note, { thought, calls } = {}) {
    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 48;
    const folded = [...(thought ? [["Thought", thought]] : [])];
    for (const call of calls ?? []) folded.push([`Call of ${call.name}`, call.arguments]);
    folded.forEach(([title, words], n) => fold(this.aside, n, title, words));
    render(this.text, text);
    this.note.textContent = note ?? "";
    if (follows) log.scrollTop = log.scrollHeight;
  }

  speak(text, end) {
    const words = text.slice(this.spoken, end).trim();
    if (words) announce(words);
    this.spoken = end;
  }
}

// Say what went wrong below the last turn, with a button to ask again. For `wait` seconds it only counts them.
export function problem(text, again, wait = 0) {
  const box = document.createElement("div");
  const [message, button] = [document.createElement("p"), document.createElement("button")];
  box.className = "problem";
  message.textContent = text;
  message.setAttribute("role", "alert");
  button.type = "button";
  button.className = "again";
  box.append(message, button);
  log.append(box);
  log.scrollTop = log.scrollHeight;

  let left = Math.min(wait, 600);
  const count = () => {
    button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    button.setAttribute("aria-disabled", String(left > 0)); // and not disabled, which would drop the focus
    if (left-- > 0 && box.isConnected) setTimeout(count, 1000);
  };
  count();
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-disabled") === "true") return;
    box.remove();
    again();
  });
}

export function forgetProblems() {
  for (const box of log.querySelectorAll(".problem")) box.remove();
}

// Show something below a title that opens it, as number `n` in its place.
function fold(place, n, title, words) {
  if (!place.children[n]) {
    const details = document.createElement("details");
    details.append(document.createElement("summary"), document.createElement("pre"));
    place.append(details);
  }
  const [summary, shown] = place.children[n].children;
  summary.textContent = title;
  shown.textContent = words;
}

function turn(who, kind) {
  const [article, heading] = [document.createElement("article"), document.createElement("h2")];
  article.className = kind;
  heading.textContent = who;
  article.append(heading);
  log.append(article);
  return article;
}

function announce(text) {
  const line = document.createElement("span");
  line.textContent = `${text} `;
  announced.append(line);
}
