// The page: the stream, the controls, the keys.

import { Model } from "./model.js";
import { Grid, stateOf } from "./tiles.js";
import { Panel, legend } from "./panel.js";
import { Settings } from "./operator.js";
import { forgetColours } from "./draw.js";
import { el, exact, percent, rate, set, span } from "./text.js";

const $ = (id) => document.getElementById(id);
const model = new Model();
const sorts = ["errors", "volume", "latency", "name"];
const themes = ["system", "light", "dark"];

let paused = false;
let heard = 0; // when the last message came
let refused = false;
let assets = null;

// What is remembered beyond a visit; a browser may forbid it.
const store = {
  get(key) {
    try {
      return localStorage.getItem("firebreak." + key);
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem("firebreak." + key, value);
    } catch {
      // Then it is not.
    }
  },
};

const page = {
  open: (id) => openDetail(id),
  close: () => closeSide(),
  paused: () => paused,
};
const panel = new Panel($("side"), model, page);
const grid = new Grid($("grid"), model, (tile) => openDetail(tile.id));
const settings = new Settings($("settings-body"), model);

// The view is in the address, so that it can be passed on.

function readAddress() {
  const q = new URLSearchParams(location.hash.slice(1));
  grid.view.query = q.get("q") ?? "";
  grid.view.sort = sorts.includes(q.get("sort")) ? q.get("sort") : "errors";
  grid.view.problems = q.get("problems") === "1";
  grid.view.flat = q.get("flat") === "1";
  return { id: q.get("c") };
}

function writeAddress() {
  const q = new URLSearchParams();
  const v = grid.view;
  if (v.query) q.set("q", v.query);
  if (v.sort !== "errors") q.set("sort", v.sort);
  if (v.problems) q.set("problems", "1");
  if (v.flat) q.set("flat", "1");
  if (panel.id) q.set("c", panel.id);
  const text = q.toString();
  history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
}

let wanted = readAddress().id;

function showView() {
  const v = grid.view;
  if ($("filter").value !== v.query) $("filter").value = v.query;
  $("sort").value = v.sort;
  $("problems").setAttribute("aria-pressed", v.problems);
  $("group").setAttribute("aria-pressed", !v.flat);
  $("pause").setAttribute("aria-pressed", paused);
}

function change(view) {
  Object.assign(grid.view, view);
  showView();
  writeAddress();
  grid.update(performance.now(), true);
  showEmpty();
}

// The stream.

let source = null;

function connect() {
  source?.close();
  source = new EventSource("stream");
  source.addEventListener("whole", (e) => take(e, true));
  source.addEventListener("change", (e) => take(e, false));
  source.addEventListener("error", () => {
    showStatus();
    // A browser comes back by itself when a connection breaks, not when it is refused.
    if (source.readyState === EventSource.CLOSED) {
      refused = true;
      showStatus();
      setTimeout(connect, 5000);
    }
  });
}

function take(e, whole) {
  heard = performance.now();
  refused = false;
  const fresh = model.apply(JSON.parse(e.data), whole);
  if (whole) greet();
  announce(whole ? [] : fresh);
  if (!paused) show();
  showStatus();
}

function greet() {
  const g = model.greeting;
  set($("title"), g.title);
  $("settings").hidden = !g.operator;
  if (assets && assets !== g.assets) notice("This page is out of date: the server has another one.", "Reload", () => location.reload());
  assets ??= g.assets;
}

function show() {
  grid.update(performance.now(), false);
  if (wanted !== null && model.commands.has(wanted)) {
    const id = wanted;
    wanted = null;
    openDetail(id, false);
  }
  panel.update();
  showSummary();
  showEmpty();
}

function showSummary() {
  let calls = 0;
  let all = 0;
  let unanswered = 0;
  const n = { open: 0, half: 0, forced: 0, hurt: 0 };
  for (const c of model.commands.values()) {
    calls += c.rate;
    all += c.windowCalls;
    unanswered += (c.windowCalls * c.errors) / 100;
    const { sign, word } = stateOf(c.data);
    if (sign === "open") n.open++;
    else if (sign === "half_open") n.half++;
    else if (sign !== "closed") n.forced++;
    if (c.grade === 2) n.hurt++;
    if (word === "Forced open") n.forced++;
  }
  const items = [[exact(model.commands.size), model.commands.size === 1 ? "command" : "commands", 0]];
  if (n.open) items.push([n.open, "open", 3]);
  if (n.half) items.push([n.half, "half-open", 2]);
  if (n.hurt) items.push([n.hurt, "in trouble", 2]);
  if (n.forced) items.push([n.forced, "by hand", 0]);
  items.push([rate(calls), "calls/s", 0], [percent(all ? (100 * unanswered) / all : 0), "without an answer", 0]);
  if (model.leftOut) items.push([exact(model.leftOut), "left out", 2]);
  const list = $("summary");
  const signature = JSON.stringify(items);
  if (list.signature === signature) return;
  list.signature = signature;
  list.replaceChildren(...items.map(([b, text, grade]) => el("li", { data: { grade } }, el("b", { textContent: b }), " " + text)));
  const alarm = n.open ? `(${n.open} open) ` : "";
  const title = alarm + (model.greeting?.title ?? "firebreak");
  if (document.title !== title) document.title = title;
}

function showEmpty() {
  const shown = grid.tiles.size;
  const all = model.commands.size;
  $("empty").hidden = shown > 0 || model.greeting === null;
  if (!shown) set($("empty"), all === 0 ? "No command has been made yet." : grid.view.query ? "No command passes the filter." : "Nothing to see: no command has a problem.");
}

// announce tells those who do not see of changes of state, a few at a time.
function announce(events) {
  const texts = [];
  for (const e of events) {
    if (e.command === undefined || e.from === e.to) continue;
    texts.push(`${e.key !== undefined ? `${e.command}[${e.key}]` : e.command}: circuit ${e.to.replace("_", "-")}`);
  }
  if (texts.length) $("announce").textContent = texts.slice(0, 4).join(". ") + (texts.length > 4 ? `. And ${texts.length - 4} more` : "");
}

function showStatus() {
  const age = performance.now() - heard;
  const patience = 3 * (model.greeting?.interval ?? 1000) + 1000;
  let is = "live";
  let text = "live";
  if (!heard) [is, text] = ["connecting", refused ? "refused: too many watch" : "connecting"];
  else if (model.draining) [is, text] = ["over", "shut down"];
  else if (age > patience) [is, text] = ["stale", `${refused ? "refused, " : ""}stale since ${span(age)}`];
  else if (paused) [is, text] = ["paused", "paused"];
  $("status").dataset.is = is;
  set($("status-text"), text);
  document.body.classList.toggle("stale", is === "stale" || is === "over");
}

function notice(text, action, act) {
  const button = el("button", { type: "button", textContent: action });
  button.addEventListener("click", act);
  $("notice").replaceChildren(text + " ", button);
  $("notice").hidden = false;
}

// The side.

function openDetail(id, focus = true) {
  if (panel.id !== id) panel.detail(id);
  sideChanged();
  if (focus) panel.title.focus();
}

function openEvents(focus = true) {
  panel.events();
  sideChanged();
  if (focus) panel.title.focus();
}

function closeSide() {
  const id = panel.id;
  panel.clear();
  sideChanged();
  const tile = grid.tiles.get(id);
  if (tile) tile.button.focus({ preventScroll: true });
  else $("events").focus();
}

function sideChanged() {
  document.body.classList.toggle("with-side", panel.showing !== "");
  $("events").setAttribute("aria-pressed", panel.showing === "events");
  grid.choose(panel.id);
  writeAddress();
}

// Controls and keys.

function pause() {
  paused = !paused;
  showView();
  showStatus();
  if (!paused) show();
}

function theme(next) {
  if (next === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  $("theme").textContent = "Theme: " + next;
  store.set("theme", next);
  repaint();
}

function repaint() {
  forgetColours();
  grid.repaint();
  panel.update();
}

const nextOf = (list, is) => list[(list.indexOf(is) + 1) % list.length];
const currentTheme = () => document.documentElement.dataset.theme ?? "system";
const toggleEvents = () => (panel.showing === "events" ? closeSide() : openEvents());

const keys = {
  "/": () => { $("filter").focus(); $("filter").select(); },
  s: () => change({ sort: nextOf(sorts, grid.view.sort) }),
  o: () => change({ problems: !grid.view.problems }),
  g: () => change({ flat: !grid.view.flat }),
  e: toggleEvents,
  p: pause,
  t: () => theme(nextOf(themes, currentTheme())),
  "?": () => $("help-dialog").showModal(),
};

addEventListener("keydown", (e) => {
  if (e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
  const typing = e.target.matches?.("input:not([type=checkbox]), textarea, select");
  if (e.key === "Escape") {
    if (e.target === $("filter")) {
      change({ query: "" });
      $("filter").blur();
    } else if (panel.showing) closeSide();
    else if (grid.view.query) change({ query: "" });
    return;
  }
  if (typing || !$("shortcuts").checked || !keys[e.key]) return;
  e.preventDefault();
  keys[e.key]();
});

$("filter").addEventListener("input", () => change({ query: $("filter").value.trim() }));
$("filter").addEventListener("keydown", (e) => {
  if (e.key !== "ArrowDown" && e.key !== "Enter") return;
  e.preventDefault();
  const first = grid.order()[0];
  first?.button.focus();
});
$("sort").addEventListener("change", () => change({ sort: $("sort").value }));
$("problems").addEventListener("click", keys.o);
$("group").addEventListener("click", keys.g);
$("events").addEventListener("click", toggleEvents);
$("pause").addEventListener("click", pause);
$("theme").addEventListener("click", keys.t);
$("help").addEventListener("click", keys["?"]);
$("settings").addEventListener("click", () => {
  $("settings-dialog").showModal();
  settings.open();
});
for (const b of document.querySelectorAll("[data-close]")) b.addEventListener("click", () => b.closest("dialog").close());
$("shortcuts").checked = store.get("shortcuts") !== "off";
$("shortcuts").addEventListener("change", () => store.set("shortcuts", $("shortcuts").checked ? "on" : "off"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
addEventListener("hashchange", () => {
  const { id } = readAddress();
  change({});
  if (id && model.commands.has(id)) openDetail(id, false);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) panel.update();
});
new ResizeObserver(() => document.documentElement.style.setProperty("--top", document.querySelector(".top").offsetHeight + "px")).observe(document.querySelector(".top"));

$("legend").append(...legend());
theme(themes.includes(store.get("theme")) ? store.get("theme") : "system");
showView();
if (innerWidth >= 1800 && wanted === null) openEvents(false);
setInterval(showStatus, 1000);
connect();
