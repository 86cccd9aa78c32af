// The grid: a group for each dependency, a tile for each command.

import { compare, groups } from "./model.js";
import * as draw from "./draw.js";
import { coarse, count, el, exact, name, percent, rate, set, shape, span } from "./text.js";

const shown = ["success", "failure", "short", "timeout", "expected", "rejected"];
const tileMin = 312; // as in the style sheet
const shorter = { short: "short-circ." };

// stateOf is the word and the sign of what holds: a mode that is forced says more
// than the state it makes.
export function stateOf(d) {
  if (d.mode === "force_open") return { sign: "open", word: "Forced open" };
  if (d.mode === "force_closed") return { sign: "force_closed", word: "Forced closed" };
  if (d.mode === "shadow") return { sign: "shadow", word: d.state === "closed" ? "Shadow" : "Shadow: " + d.state.replace("_", "-") };
  if (d.state === "open") return { sign: "open", word: "Open" };
  if (d.state === "half_open") return { sign: "half_open", word: "Half-open" };
  return { sign: "closed", word: "Closed" };
}

export function stateBadge(node, d) {
  const { sign, word } = stateOf(d);
  if (node.shown === word) return;
  node.shown = word;
  node.dataset.state = sign;
  node.replaceChildren(shape(sign), word);
}

// Bulkhead is a dependency's, in a group's heading or a tile.
export class Bulkhead {
  constructor(withName) {
    this.of = withName ? name("") : null;
    if (this.of) this.of.className = "of";
    this.bar = el("i");
    this.meter = el("span", { className: "meter", "aria-hidden": "true" }, this.bar);
    this.use = el("b");
    this.rest = el("span");
    this.hurt = el("span", { className: "hurt" });
    this.node = el("div", { className: "bulkhead" }, this.of, this.meter, el("span", {}, this.use, " "), this.rest, this.hurt);
  }

  show(b) {
    if (!b || this.was === b) return;
    this.was = b;
    if (this.of) set(this.of, b.dependency);
    const share = b.limit ? Math.min(1, b.inFlight / b.limit) : 0;
    this.bar.style.transform = `scaleX(${share})`;
    this.meter.dataset.full = share >= 1 ? "full" : share >= 0.9 ? "high" : "no";
    set(this.use, `${b.inFlight}/${b.limit ? b.limit : "∞"}`);
    set(this.rest, b.isolation === "pool" ? "in pool" : "in flight");
    const hurt = [];
    if (b.queued) hurt.push(b.queued + " queued");
    if (b.abandoned) hurt.push(b.abandoned + " abandoned");
    set(this.hurt, hurt.join(", "));
  }
}

class Tile {
  constructor(c, grid) {
    this.id = c.id;
    this.name = name(c.data.name);
    this.button = el("button", { type: "button", tabIndex: -1, title: c.data.name }, this.name);
    this.label(c);
    this.state = el("span", { className: "state" });
    this.canvas = el("canvas", { "aria-hidden": "true", width: 0, height: 0 });
    this.counters = shown.map((g) => {
      const b = el("b");
      const label = groups.find((x) => x.id === g).label;
      return { g, b, node: el("div", { className: "counter", data: { group: g }, title: label }, el("span", { textContent: shorter[g] ?? label }), b) };
    });
    this.errors = el("span", { className: "errors" });
    this.volume = el("span", { className: "volume" });
    this.flight = el("span");
    this.times = ["p50", "p90", "p99", "p99.5"].map((p) => ({ p, b: el("b") }));
    this.why = el("div", { className: "why" });
    this.bulkhead = new Bulkhead(true);
    this.node = el("li", { className: "tile", data: { grade: 0 } },
      el("div", { className: "head" }, this.button, this.state),
      el("div", { className: "body" }, this.canvas, el("div", { className: "counters" }, ...this.counters.map((c) => c.node))),
      el("div", { className: "figures" }, this.errors, this.volume, this.flight),
      el("div", { className: "latencies" }, ...this.times.map((t) => el("span", {}, t.p + " ", t.b))),
      this.why, this.bulkhead.node);
    this.node.tile = this;
    this.visible = false;
    grid.watcher.observe(this.node);
    this.node.addEventListener("click", () => {
      if (getSelection()?.toString()) return; // somebody copies a name
      grid.select(this);
    });
    this.button.addEventListener("focus", () => grid.rove(this));
  }

  // label is the tile in words.
  label(c) {
    this.told = c.grade + c.data.state + c.data.mode;
    const text = `${c.data.name}, circuit ${stateOf(c.data).word.toLowerCase()}, ${percent(c.errors)} errors, ${rate(c.rate)} calls a second` +
      (c.problems.length ? ". " + c.problems.map((p) => p.text).join(", ") : "");
    if (text === this.text) return;
    this.text = text;
    this.button.setAttribute("aria-label", text);
  }

  // show writes what is seen. The rest is written when it comes into view; but who
  // does not see has it all in reach, and is told of what matters.
  show(c, model) {
    if (this.version === c.version) return;
    this.version = c.version;
    const d = c.data;
    stateBadge(this.state, d);
    this.node.dataset.grade = c.grade;
    for (const { g, b, node } of this.counters) {
      let n = 0;
      for (const o of groups.find((x) => x.id === g).of) n += model.window(d, o);
      set(b, count(n));
      node.toggleAttribute("data-some", n > 0);
    }
    set(this.errors, percent(c.errors) + " err");
    this.errors.dataset.health = draw.health(c.errors);
    set(this.volume, rate(c.rate) + "/s");
    set(this.flight, d.inFlight + (d.inFlight === 1 ? " run" : " runs"));
    this.times.forEach(({ b }, i) => set(b, coarse(d.latency[i + 1])));
    set(this.why, whyOf(c, model));
    this.bulkhead.show(model.dependencies.get(d.of));
    this.label(c);
    draw.tile(this.canvas, c, model.at);
  }
}

// because tells which rule opened a circuit, and on what.
export function because(e) {
  if (e.rule === "probe") return "a probe failed";
  if (e.rule === "slow calls") return `slow calls: ${exact(e.slow)} of ${exact(e.calls)} were slow`;
  return `${e.rule}: ${exact(e.failures)} of ${exact(e.calls)} failed`;
}

// whyOf is the tile's last line: the evidence of an open circuit, or what else there is.
function whyOf(c, model) {
  const d = c.data;
  const e = d.evidence;
  if (d.mode === "auto" && d.state !== "closed" && e) {
    const left = e.nextProbe - model.now();
    const when = d.state === "half_open" ? "probing" : left > 0 ? "probe in " + span(left) : "probe with the next call";
    return `${when} · ${because(e)}`;
  }
  if (d.override?.reason) return `${c.problems[0]?.text ?? "override"}: ${d.override.reason}` + (d.override.author ? ` (${d.override.author})` : "");
  return c.problems.map((p) => p.text).join(" · ");
}

class Group {
  constructor(dependency) {
    this.title = el("h2", {}, name(dependency));
    this.title.id = "g" + ++Group.made;
    this.bulkhead = new Bulkhead(false);
    this.list = el("ul", { className: "tiles", role: "list" }); // without marks it is none to some readers
    this.list.setAttribute("aria-label", dependency);
    this.node = el("div", { className: "group", role: "group" }, el("div", { className: "heading" }, this.title, this.bulkhead.node), this.list);
    this.node.setAttribute("aria-labelledby", this.title.id);
    this.tiles = [];
  }
}
Group.made = 0;

// Grid shows a model's commands.
export class Grid {
  constructor(root, model, select) {
    this.root = root;
    this.model = model;
    this.select = select;
    this.tiles = new Map();
    this.groups = new Map();
    this.dirty = new Set();
    this.view = { query: "", sort: "errors", problems: false, flat: false };
    this.sorted = 0;
    this.current = null; // the tile that Tab goes to
    this.chosen = null;
    // What is far out of view is neither written nor drawn.
    this.watcher = new IntersectionObserver((entries) => {
      for (const e of entries) {
        const tile = e.target.tile;
        tile.visible = e.isIntersecting;
        if (tile.visible) this.mark(tile);
      }
    }, { rootMargin: "300px" });
    this.columns = 1;
    new ResizeObserver(() => this.resize()).observe(root);
    root.addEventListener("keydown", (e) => this.key(e));
  }

  // resize counts the columns by the width: what the grid says of itself counts those
  // that a group which is too wide has made.
  resize() {
    const gap = 10;
    const columns = Math.max(1, Math.floor((this.root.clientWidth + gap) / (tileMin + gap)));
    if (columns === this.columns) return;
    this.columns = columns;
    this.arrange(this.sorted);
  }

  passes(c) {
    const v = this.view;
    if (v.problems && c.grade === 0) return false;
    if (!v.query) return true;
    const text = (c.data.name + "\n" + c.data.of).toLowerCase();
    return v.query.toLowerCase().split(/\s+/).every((word) => text.includes(word));
  }

  // update takes in that the model has changed. It sorts again now and then only,
  // and when something has changed for the worse: tiles that dance cannot be read.
  update(now, force) {
    const worse = this.alarmed();
    const members = this.members();
    if (force || worse || members || now - this.sorted > 10000) this.arrange(now);
    for (const g of this.groups.values()) g.bulkhead.show(this.model.dependencies.get(g.dependency));
    for (const tile of this.tiles.values()) {
      if (tile.visible) this.mark(tile);
      else {
        const c = this.model.commands.get(tile.id);
        if (tile.told !== c.grade + c.data.state + c.data.mode) tile.label(c);
      }
    }
  }

  alarmed() {
    let worse = false;
    for (const c of this.model.commands.values()) {
      const critical = c.grade === 3;
      if (critical !== c.alarmed) worse = true;
      c.alarmed = critical;
    }
    return worse;
  }

  // members tells whether other commands are to be shown than are.
  members() {
    let n = 0;
    for (const c of this.model.commands.values()) {
      if (!this.passes(c)) continue;
      n++;
      if (!this.tiles.has(c.id)) return true;
    }
    return n !== this.tiles.size;
  }

  arrange(now) {
    this.sorted = now;
    const by = compare(this.view.sort);
    const commands = [...this.model.commands.values()].filter((c) => this.passes(c)).sort(by);
    const kept = new Set(commands.map((c) => c.id));
    for (const [id, tile] of this.tiles) {
      if (kept.has(id)) continue;
      this.watcher.unobserve(tile.node);
      this.dirty.delete(tile);
      tile.node.remove();
      this.tiles.delete(id);
      if (this.current === tile) this.current = null;
    }
    // A dependency stands where its first command does.
    const wanted = new Map();
    for (const c of commands) {
      const key = this.view.flat ? "" : c.data.of;
      if (!wanted.has(key)) wanted.set(key, []);
      wanted.get(key).push(c);
    }
    for (const [key, g] of this.groups) {
      if (!wanted.has(key)) {
        g.node.remove();
        this.groups.delete(key);
      }
    }
    const focused = document.activeElement;
    let before = null;
    for (const [key, list] of this.pack([...wanted])) {
      let g = this.groups.get(key);
      if (!g) {
        g = new Group(key);
        g.dependency = key;
        this.groups.set(key, g);
      }
      place(this.root, g.node, before);
      before = g.node;
      g.tiles = list.map((c) => {
        let tile = this.tiles.get(c.id);
        if (!tile) {
          tile = new Tile(c, this);
          this.tiles.set(c.id, tile);
        }
        return tile;
      });
      let last = null;
      for (const tile of g.tiles) {
        place(g.list, tile.node, last);
        last = tile.node;
      }
    }
    // An element that is moved loses the focus.
    if (focused && focused !== document.activeElement && this.root.contains(focused)) focused.focus({ preventScroll: true });
    if (!this.current) this.rove(this.order()[0]);
    this.root.classList.toggle("flat", this.view.flat);
    this.span();
  }

  // pack fills rows: where a group does not fit any more, the next one that does comes
  // first. By name, everything stays where it is looked for.
  pack(groups) {
    if (this.view.sort === "name" || this.view.flat) return groups;
    const packed = [];
    let room = this.columns;
    while (groups.length) {
      let i = groups.findIndex(([, list]) => Math.min(list.length, this.columns) <= room);
      if (i < 0) {
        room = this.columns;
        i = 0;
      }
      const [group] = groups.splice(i, 1);
      packed.push(group);
      room -= Math.min(group[1].length, this.columns);
      if (room === 0) room = this.columns;
    }
    return packed;
  }

  // span gives each group the columns of its tiles.
  span() {
    const columns = this.columns;
    for (const g of this.groups.values()) {
      const n = this.view.flat ? columns : Math.max(1, Math.min(columns, g.tiles.length));
      if (g.spanned !== n) g.node.style.gridColumn = `span ${n}`;
      g.spanned = n;
    }
  }

  order() {
    return [...this.groups.values()].sort((a, b) => follows(a.node, b.node)).flatMap((g) => g.tiles);
  }

  rove(tile) {
    if (!tile || tile === this.current) return;
    if (this.current) this.current.button.tabIndex = -1;
    this.current = tile;
    tile.button.tabIndex = 0;
  }

  choose(id) {
    if (this.chosen) delete this.chosen.node.dataset.chosen;
    this.chosen = this.tiles.get(id) ?? null;
    if (this.chosen) this.chosen.node.dataset.chosen = "";
  }

  key(e) {
    if (e.ctrlKey || e.metaKey || e.altKey || !e.target.closest?.(".tile")) return;
    const tiles = this.order();
    const here = tiles.indexOf(e.target.closest(".tile").tile);
    let to = null;
    switch (e.key) {
      case "ArrowRight": to = tiles[here + 1]; break;
      case "ArrowLeft": to = tiles[here - 1]; break;
      case "ArrowDown": to = this.beyond(tiles, here, 1); break;
      case "ArrowUp": to = this.beyond(tiles, here, -1); break;
      case "Home": to = tiles[0]; break;
      case "End": to = tiles[tiles.length - 1]; break;
      default: return;
    }
    e.preventDefault();
    to?.button.focus();
    to?.node.scrollIntoView({ block: "nearest" });
  }

  // beyond is the nearest tile of the next row.
  beyond(tiles, here, step) {
    const from = tiles[here].node.getBoundingClientRect();
    const x = from.left + from.width / 2;
    let best = null;
    let bestAt = 0;
    for (let i = here + step; i >= 0 && i < tiles.length; i += step) {
      const r = tiles[i].node.getBoundingClientRect();
      const away = step * (r.top - from.top);
      if (away < 4) continue;
      if (best && away > bestAt + 60) break;
      const off = Math.abs(r.left + r.width / 2 - x);
      if (!best || off < best.off) best = { tile: tiles[i], off };
      bestAt ||= away;
    }
    return best?.tile;
  }

  mark(tile) {
    this.dirty.add(tile);
    if (!this.frame) this.frame = requestAnimationFrame(() => this.paint());
  }

  // paint writes as many tiles as fit in a part of a frame, the rest in the next ones.
  paint() {
    this.frame = 0;
    const until = performance.now() + 6;
    for (const tile of this.dirty) {
      this.dirty.delete(tile);
      const c = this.model.commands.get(tile.id);
      if (c && tile.visible) tile.show(c, this.model);
      if (performance.now() > until) break;
    }
    if (this.dirty.size) this.frame = requestAnimationFrame(() => this.paint());
  }

  repaint() {
    for (const tile of this.tiles.values()) {
      tile.version = -1;
      this.mark(tile);
    }
  }
}

// place puts a node after another one, and touches nothing if it is there.
function place(parent, node, after) {
  const next = after ? after.nextSibling : parent.firstChild;
  if (node !== next) parent.insertBefore(node, next);
}

const follows = (a, b) => (a.compareDocumentPosition(b) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1);
