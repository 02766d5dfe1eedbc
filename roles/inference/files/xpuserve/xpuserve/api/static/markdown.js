// What models write, as elements: code blocks, lists, headings, bold, italic and code. Elements and their text are all
// that is made: nothing a model writes is ever read as HTML, and links stay text.

const FENCE = /^\s*(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
const HEADING = /^ {0,3}#{1,6}\s+(.+?)\s*#*$/;
const ITEM = /^(\s*)(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/;
const INLINE = /(`+)(.+?)\1(?!`)|\*\*(?=\S)(.+?)\*\*|(?<![\w*])\*(?=[^\s*])([^*\n]+?)\*(?![\w*])/gs;

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
    const [fence, item] = [FENCE.exec(line), ITEM.exec(line)];
    if (fence) {
      open = null;
      const indent = line.search(/\S/);
      const code = [];
      for (n++; n < lines.length && !closes(lines[n], fence[1]); n++) code.push(dedent(lines[n], indent));
      found.push({ kind: "code", language: fence[2], text: code.join("\n") });
    } else if (HEADING.test(line)) {
      open = null;
      found.push({ kind: "heading", text: HEADING.exec(line)[1] });
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

function closes(line, fence) {
  const end = line.trim();
  return end.length >= fence.length && end === fence[0].repeat(end.length);
}

function dedent(line, indent) {
  return line.slice(Math.min(indent, Math.max(0, line.search(/\S|$/))));
}

function make(block) {
  if (block.kind === "code") return codeBlock(block);
  if (block.kind === "list") return list([...block.items]);
  return inline(document.createElement(block.kind === "heading" ? "h3" : "p"), block.text);
}

// Takes the items of one list, and of the lists in it, from the front of `items`.
function list(items) {
  const { indent, number } = items[0];
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
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, , code, bold, italic] = match;
    element.append(text.slice(end, match.index));
    end = match.index + whole.length;
    if (code !== undefined) {
      const part = document.createElement("code");
      part.textContent = code.trim() || code;
      element.append(part);
    } else {
      element.append(inline(document.createElement(bold === undefined ? "em" : "strong"), bold ?? italic));
    }
  }
  element.append(text.slice(end));
  return element;
}
