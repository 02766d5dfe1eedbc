// Chats and settings, in this browser only. Each chat has an entry of its own: two tabs do not overwrite each other's.

const CHAT = "xpuserve.chat.";
const SETTINGS = "xpuserve.settings";
const MOST_CHATS = 100;

// The browser's storage, where people let it have one: asking for it fails otherwise.
export function storage(name) {
  try {
    return window[name];
  } catch {
    return { getItem: () => null, removeItem: () => {}, setItem: () => fail(name) };
  }
}

function fail(name) {
  throw new Error(`${name} is off`);
}

const kept = storage("localStorage");

// Settings that were never saved: those of `xpuserve chat`.
const DEFAULTS = { system: "", temperature: 0, maxTokens: null };

// A chat without messages; `changed` orders chats.
export function newChat() {
  const id = Date.now().toString(36) + Math.random().toString(36).slice(2, 8);
  return { id, changed: Date.now(), messages: [] };
}

// All chats, the latest first. An entry that is not ours is left alone.
export function chats() {
  const found = [];
  for (const name of Object.keys(kept)) {
    if (!name.startsWith(CHAT)) continue;
    const chat = read(name);
    if (Array.isArray(chat?.messages) && chat.messages.length) found.push(chat);
  }
  return found.sort((a, b) => b.changed - a.changed);
}

// What a chat is called: how it begins.
export function title(chat) {
  return chat.messages[0].content.trim().replace(/\s+/g, " ").slice(0, 80);
}

// Keep a chat; the oldest ones make room. False if the browser keeps nothing.
export function save(chat) {
  const others = chats().filter((other) => other.id !== chat.id);
  for (const old of others.splice(MOST_CHATS - 1)) forget(old);
  for (;;) {
    if (write(CHAT + chat.id, chat)) return true;
    if (!others.length) return false;
    forget(others.pop());
  }
}

export function forget(chat) {
  kept.removeItem(CHAT + chat.id);
}

export function settings() {
  return { ...DEFAULTS, ...read(SETTINGS) };
}

export function saveSettings(values) {
  return write(SETTINGS, values);
}

function read(name) {
  try {
    return JSON.parse(kept.getItem(name));
  } catch {
    return null;
  }
}

function write(name, value) {
  try {
    kept.setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}
