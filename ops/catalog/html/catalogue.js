// Search and colours. The pages are whole without it.
"use strict";

const root = document.body.dataset.root;
const HITS_MAX = 20;

// ---- colours

const systemDark = matchMedia("(prefers-color-scheme: dark)");
const themeButton = document.getElementById("theme");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : systemDark.matches;
}

function nameTheme() {
  themeButton.textContent = isDark() ? "Light" : "Dark";
  themeButton.setAttribute("aria-label", isDark() ? "Use light colours" : "Use dark colours");
}

themeButton.addEventListener("click", () => {
  const next = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try { localStorage.setItem("catalogue-theme", next); } catch { /* storage is off: it holds for this page */ }
  nameTheme();
});
systemDark.addEventListener("change", nameTheme);
themeButton.hidden = false;
nameTheme();

// ---- drawings: the lines of the card under the pointer, or with the focus, stand out

for (const drawing of document.querySelectorAll("svg.graph")) {
  const lines = [...drawing.querySelectorAll("path")];
  const light = (event) => {
    const card = event.target.closest(".card");
    drawing.classList.toggle("followed", Boolean(card));
    const key = card && card.dataset.key;
    for (const line of lines) line.classList.toggle("lit", line.dataset.from === key || line.dataset.to === key);
  };
  drawing.addEventListener("pointerover", light);
  drawing.addEventListener("focusin", light);
  drawing.addEventListener("pointerleave", () => drawing.classList.remove("followed"));
}

// ---- search

const box = document.querySelector("[role=search]");
const input = document.getElementById("search");
const list = document.getElementById("hits");
const status = document.getElementById("found");
let entries = null;
let shown = [];
let active = -1;

// The index is a script because a page opened from disk may not read data files; it is loaded at the first use.
function load() {
  if (entries) return;
  entries = [];
  const script = document.createElement("script");
  script.src = root + "search-index.js";
  script.addEventListener("load", () => {
    entries = self.catalogueIndex.map(([kind, name, doc, page, also]) => ({
      kind, name, doc, page, low: name.toLowerCase(), text: (doc + " " + also).toLowerCase(),
    }));
    search();
  });
  script.addEventListener("error", () => { status.textContent = "The search index is missing."; });
  document.head.append(script);
}

const KINDS = { event: 4, subscription: 4, connection: 4, action: 2, field: 0 };

function score(entry, words) {
  let total = KINDS[entry.kind] || 0;
  for (const word of words) {
    const at = entry.low.indexOf(word);
    const last = entry.low.slice(entry.low.lastIndexOf(".") + 1);
    if (last === word || entry.low === word) total += 40;
    else if (last.startsWith(word)) total += 25;
    else if (at >= 0) total += entry.kind === "field" && !last.includes(word) ? 4 : 16;
    else if (entry.text.includes(word)) total += 6;
    else return 0;
  }
  return total;
}

// Whether the letters stand in the name in this order: what a typo mostly leaves.
function roughly(entry, word) {
  let from = 0;
  for (const char of word) {
    from = entry.low.indexOf(char, from) + 1;
    if (!from) return false;
  }
  return true;
}

function search() {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean).slice(0, 8);
  if (!words.length) return close();
  let found = entries.map((entry) => [score(entry, words), entry]).filter(([points]) => points > 0);
  if (!found.length) {
    found = entries
      .filter((entry) => entry.kind !== "field" && words.every((word) => word.length > 2 && roughly(entry, word)))
      .map((entry) => [1, entry]);
  }
  found.sort((one, other) => other[0] - one[0] || (one[1].name < other[1].name ? -1 : 1));
  shown = found.slice(0, HITS_MAX).map(([, entry]) => entry);
  list.replaceChildren(...shown.map(option));
  active = shown.length ? 0 : -1;
  mark();
  list.hidden = false;
  input.setAttribute("aria-expanded", "true");
  const more = found.length > shown.length ? `, the first ${shown.length} shown` : "";
  status.textContent = found.length === 1 ? "1 found" : `${found.length || "Nothing"} found${more}`;
  if (!shown.length) {
    const none = document.createElement("li");
    none.className = "none";
    none.textContent = "Nothing found";
    list.append(none);
  }
}

function option(entry, at) {
  const item = document.createElement("li");
  item.id = `hit-${at}`;
  item.setAttribute("role", "option");
  const link = document.createElement("a");
  link.href = root + entry.page;
  link.tabIndex = -1;
  const kind = document.createElement("span");
  kind.className = "kind";
  kind.textContent = entry.kind;
  const name = document.createElement("span");
  name.className = "name";
  name.textContent = entry.name;
  const doc = document.createElement("span");
  doc.className = "doc";
  doc.textContent = entry.doc;
  link.append(name, kind, doc);
  item.append(link);
  return item;
}

function mark() {
  for (const [at, item] of [...list.children].entries()) {
    item.setAttribute("aria-selected", String(at === active));
    if (at === active) item.scrollIntoView({ block: "nearest" });
  }
  if (active >= 0) input.setAttribute("aria-activedescendant", `hit-${active}`);
  else input.removeAttribute("aria-activedescendant");
}

function close() {
  list.hidden = true;
  shown = [];
  active = -1;
  input.setAttribute("aria-expanded", "false");
  input.removeAttribute("aria-activedescendant");
  status.textContent = "";
}

input.addEventListener("focus", load);
input.addEventListener("input", () => { load(); search(); });
input.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    if (!shown.length) return;
    event.preventDefault();
    active = (active + (event.key === "ArrowDown" ? 1 : -1) + shown.length) % shown.length;
    mark();
  } else if (event.key === "Enter" && active >= 0) {
    event.preventDefault();
    location.href = root + shown[active].page;
    close();
  } else if (event.key === "Escape") {
    input.value = "";
    close();
  }
});
document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    input.focus();
    input.select();
  }
});
document.addEventListener("click", (event) => { if (!box.contains(event.target)) close(); });
box.addEventListener("focusout", (event) => { if (event.relatedTarget && !box.contains(event.relatedTarget)) close(); });
box.hidden = false;
