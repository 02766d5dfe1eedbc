// What models write, as elements: code blocks, lists, headings, bold, italic and code. Elements and their text are all
// that is made: nothing a model writes is ever read as HTML, and links stay text.

// Every pattern here, and every loop, looks at a character a fixed number of times at most: models write anything.
const FENCE = /^\s*(`{3,}|~{3,})/;
const HEADING = /^ {0,3}#{1,6}\s+(?=\S)/;
const ITEM = /^(\s*)(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/s;

// Show `text` in `element`. Blocks that are there already stay, so that a selection outlives what is still being written.
export function render(element, text) {
  const wanted = blocks(text);
  wanted.forEach((block, n) => {
    const there = element.children[n];
    const source = JSON.stringify(block);
    if (there?.source === source) return;
    const made = make(block);
    made.source = source;
    if (there) there.replaceWith(made);
    else element.append(made);
  });
  while (element.children.length > wanted.length) element.lastElementChild.remove();
}

function blocks(text) {
  const found = [];
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  let open = null; // the paragraph or list that the next line may belong to
  for (let n = 0; n < lines.length; n++) {
    const line = lines[n];
    const [fence, heading, item] = [fenceOf(line), headingOf(line), ITEM.exec(line)];
    if (fence) {
      open = null;
      const indent = line.search(/\S/);
      const code = [];
      for (n++; n < lines.length && !closes(lines[n], fence.marks); n++) code.push(dedent(lines[n], indent));
      found.push({ kind: "code", language: fence.language, text: code.join("\n") });
    } else if (heading) {
      open = null;
      found.push({ kind: "heading", text: heading });
    } else if (item) {
      if (open?.kind !== "list") found.push((open = { kind: "list", items: [] }));
      open.items.push({ indent: item[1].length, number: item[2] ?? null, text: item[3] });
    } else if (!line.trim()) {
      if (open?.kind === "paragraph") open = null;
      else if (open && !ITEM.test(lines[n + 1] ?? "") && !/^\s/.test(lines[n + 1] ?? "")) open = null;
    } else if (open?.kind === "list") {
      open.items.at(-1).text += `\n${line.trim()}`;
    } else if (open) {
      open.text += `\n${line}`;
    } else {
      found.push((open = { kind: "paragraph", text: line }));
    }
  }
  return found;
}

// The marks that open a block of code, and the language behind them; null for any other line.
function fenceOf(line) {
  const marks = FENCE.exec(line);
  const rest = marks && line.slice(marks[0].length);
  return !marks || rest.includes("`") ? null : { marks: marks[1], language: rest.trim().split(/\s/, 1)[0] };
}

// The text of a heading, without the marks that may close it; "" for any other line.
function headingOf(line) {
  const opening = HEADING.exec(line);
  if (!opening) return "";
  const text = line.slice(opening[0].length).trimEnd();
  let end = text.length;
  while (text[end - 1] === "#") end--;
  return end && /\s/.test(text[end - 1]) ? text.slice(0, end).trimEnd() : text;
}

function closes(line, fence) {
  const end = line.trim();
  return end.length >= fence.length && end === fence[0].repeat(end.length);
}

function dedent(line, indent) {
  return line.slice(Math.min(indent, Math.max(0, line.search(/\S|$/))));
}

function make(block) {
  if (block.kind === "code") return codeBlock(block);
  if (block.kind === "list") {
    const least = block.items.reduce((indent, item) => Math.min(indent, item.indent), Infinity);
    return list([...block.items], least);
  }
  return inline(document.createElement(block.kind === "heading" ? "h3" : "p"), block.text);
}

// Takes the items of one list, and of the lists in it, from the front of `items`: those that are indented as far at least.
function list(items, indent = items[0].indent) {
  const { number } = items[0];
  const element = document.createElement(number === null ? "ul" : "ol");
  if (number !== null) element.start = Number(number);
  while (items.length && items[0].indent >= indent) {
    if (items[0].indent > indent + 1 && element.lastElementChild) element.lastElementChild.append(list(items));
    else element.append(inline(document.createElement("li"), items.shift().text));
  }
  return element;
}

function codeBlock({ language, text }) {
  const [figure, caption, name] = ["figure", "figcaption", "span"].map((tag) => document.createElement(tag));
  const [copy, pre, code] = ["button", "pre", "code"].map((tag) => document.createElement(tag));
  name.textContent = language || "code";
  copy.type = "button";
  copy.className = "copy";
  copy.textContent = "Copy";
  code.textContent = text;
  pre.tabIndex = 0; // long lines are scrolled, by keyboard too
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", `Code, ${language || "no language named"}`);
  pre.append(code);
  caption.append(name, copy);
  figure.className = "code";
  figure.append(caption, pre);
  return figure;
}

function inline(element, text) {
  for (const { kind, text: part } of spans(text)) {
    if (!kind) element.append(part);
    else if (kind === "code") {
      const code = document.createElement("code");
      code.textContent = part.trim() || part;
      element.append(code);
    } else element.append(inline(document.createElement(kind), part));
  }
  return element;
}

// The text in parts: plain, `code`, **strong** and *em*. Marks that nothing closes are text.
function spans(text) {
  const parts = [];
  const runs = backticks(text);
  let [begun, at, last] = [0, 0, text.lastIndexOf("**")];
  const found = (kind, start, end, next) => {
    parts.push({ text: text.slice(begun, at) }, { kind, text: text.slice(start, end) });
    begun = at = next;
  };
  while (at < text.length) {
    if (text[at] === "`") {
      const { length, next } = runs.get(at);
      if (next === undefined) at += length;
      else found("code", at + length, next, next + length);
    } else if (text[at] !== "*") {
      at++;
    } else if (text[at + 1] === "*" && last > at + 2 && /\S/.test(text[at + 2])) {
      const end = text.indexOf("**", at + 3);
      found("strong", at + 2, end, end + 2);
    } else {
      const end = /[\w*]/.test(text[at - 1] ?? "") || /[\s*]/.test(text[at + 1] ?? " ") ? -1 : closing(text, at + 1);
      if (end < 0) at++;
      else found("em", at + 1, end, end + 1);
    }
  }
  parts.push({ text: text.slice(begun) });
  return parts.filter((part) => part.kind || part.text);
}

// Where the next asterisk of this line is, if it can close what is emphasized; -1 otherwise.
function closing(text, from) {
  let end = from;
  while (end < text.length && text[end] !== "*" && text[end] !== "\n") end++;
  return text[end] === "*" && !/[\w*]/.test(text[end + 1] ?? "") ? end : -1;
}

// Runs of backticks by where they begin: how long each is, and where the next as long as it begins.
function backticks(text) {
  const [runs, later] = [new Map(), new Map()];
  const found = [...text.matchAll(/`+/g)].reverse();
  for (const { index, 0: { length } } of found) {
    runs.set(index, { length, next: later.get(length) });
    later.set(length, index);
  }
  return runs;
}
