// What stands beside the grid: one command in detail, or the recent events.

import { buckets, groups, idOf } from "./model.js";
import * as draw from "./draw.js";
import { because, stateBadge } from "./tiles.js";
import { count, duration, el, exact, moment, name, percent, rate, set, span } from "./text.js";
import { Override } from "./operator.js";

const words = {
  success: "success", expected: "expected", ignored: "ignored", failure: "failure", timeout: "timeout", panic: "panic",
  canceled: "canceled", caller_deadline: "caller's deadline", rejected: "rejected", short_circuited: "short-circuited",
  shutdown: "shutdown", gave_up: "gave up", fallback_success: "fallback success", fallback_failure: "fallback failure",
  fallback_rejected: "fallback rejected", fallback_missing: "fallback missing", overran: "overran",
  would_short_circuit: "would short-circuit (shadow)", emitted: "emitted by streams", cache_hits: "cache hits", batches: "batches", collapsed: "collapsed keys", observer_panics: "observer panics",
};

export const legend = () => groups.map((g) => el("li", {}, el("span", { className: "swatch", data: { group: g.id }, "aria-hidden": "true" }), g.label));

// fresh rebuilds what is in a node when what it shows has changed.
function fresh(node, what, build) {
  const signature = JSON.stringify(what);
  if (node.signature === signature) return;
  node.signature = signature;
  node.replaceChildren(...[].concat(build()));
}

function table(caption, head, rows) {
  return el("table", {}, caption && el("caption", { textContent: caption }),
    el("thead", {}, el("tr", {}, ...head.map(([text, kind]) => el("th", { scope: "col", className: kind ?? "", textContent: text })))),
    el("tbody", {}, ...rows));
}

export class Panel {
  constructor(node, model, page) {
    this.node = node;
    this.model = model;
    this.page = page; // open(id), close()
    this.showing = ""; // detail, events, or nothing
  }

  head(title, sub) {
    const close = el("button", { type: "button", className: "close", textContent: "Close" });
    close.addEventListener("click", () => this.page.close());
    this.title = el("h2", { id: "side-title", tabIndex: -1 }, title);
    return [close, this.title, sub];
  }

  clear() {
    clearInterval(this.timer);
    this.showing = "";
    this.id = null;
    this.node.replaceChildren();
    this.node.hidden = true;
  }

  // Events.

  events() {
    this.clear();
    this.showing = "events";
    this.list = el("ol", { className: "timeline" });
    this.node.hidden = false;
    this.node.replaceChildren(...this.head("Recent events", el("p", { className: "sub", textContent: "Transitions, overrides and edits, the latest first." })), this.list);
    this.update();
  }

  timeline(list, events, withNames) {
    fresh(list, events.map((e) => e.n), () => {
      if (!events.length) return el("li", {}, "", el("span", { textContent: "nothing yet" }));
      return events.map((e) => this.event(e, withNames));
    });
  }

  event(e, withName) {
    const what = el("span");
    if (withName && e.command !== undefined) {
      const open = el("button", { type: "button" }, name(e.key !== undefined ? `${e.command}[${e.key}]` : e.command));
      open.addEventListener("click", () => this.page.open(idOf(e.command, e.key)));
      what.append(open, " ");
    }
    const small = [];
    if (e.action === "document") what.append("settings changed");
    else if (e.action === "lift") what.append("override lifted");
    else if (e.from !== e.to) {
      const badge = el("span", { className: "state" });
      stateBadge(badge, { state: e.to, mode: e.mode });
      what.append(`${e.from.replace("_", "-")} → `, badge);
    } else what.append(`mode ${e.mode.replace("_", " ")}` + (e.override ? "" : ", no override"));
    if (e.evidence) {
      const v = e.evidence;
      small.push(because(v));
      if (v.lastError) small.push(v.lastError);
    }
    if (e.override) {
      const o = e.override;
      small.push([o.inject ? "drill" : "override", o.author && "by " + o.author, o.reason].filter(Boolean).join(", "));
    }
    if (e.action) small.push(`by ${e.author}: ${e.reason}`);
    return el("li", {}, moment(e.at), what, ...small.map((text) => el("small", {}, name(text))));
  }

  // One command.

  detail(id) {
    const c = this.model.commands.get(id);
    this.clear();
    this.showing = "detail";
    this.id = id;
    this.asked = null;
    const d = c?.data;
    this.state = el("span", { className: "state" });
    this.sub = el("p", { className: "sub" });
    this.parts = {};
    for (const part of ["mode", "evidence", "history", "minutes", "latency", "histogram", "counts", "timeline", "settings"]) this.parts[part] = el("div");
    this.canvas = el("canvas", { role: "img" });
    this.override = null;
    const p = this.parts;
    const operate = el("div");
    this.node.hidden = false;
    this.node.replaceChildren(
      ...this.head(name(d?.name ?? id.replace("\u0000", " ")), el("div", {}, this.state)), this.sub, p.mode, p.evidence, operate,
      el("h3", { textContent: "Outcomes, last 15 minutes" }), this.canvas, el("ul", { className: "legend" }, ...legend()), p.minutes,
      el("h3", { textContent: "Latency" }), p.latency, p.histogram,
      el("h3", { textContent: "Counts" }), p.counts,
      el("h3", { textContent: "Timeline" }), (this.list = el("ol", { className: "timeline" })),
      el("h3", { textContent: "Effective settings" }), p.settings);
    if (this.model.greeting?.operator && c) {
      this.override = new Override(operate, this.model, c, () => this.fetch());
    }
    this.timer = setInterval(() => this.fetch(), Math.max(2000, this.model.greeting?.interval ?? 0));
    this.fetch();
    this.update();
  }

  async fetch() {
    const c = this.model.commands.get(this.id);
    if (!c || document.hidden || this.page.paused() || this.asking === this.id) return;
    const id = this.id;
    this.asking = id;
    try {
      const r = await fetch("command?" + new URLSearchParams({ command: c.data.command, key: c.data.key ?? "" }), { cache: "no-store" });
      if (!r.ok) throw new Error(r.statusText);
      const answer = await r.json();
      if (this.id !== id) return;
      this.asked = answer;
      this.update();
    } catch {
      // The stream tells that the server is gone; this asks again.
    } finally {
      if (this.asking === id) this.asking = null;
    }
  }

  update() {
    if (this.showing === "events") this.timeline(this.list, this.model.events.slice(-200).reverse(), true);
    if (this.showing !== "detail") return;
    const c = this.model.commands.get(this.id);
    if (!c) {
      set(this.sub, "This command is no more, or is not among those shown.");
      return;
    }
    const d = c.data;
    const b = this.model.dependencies.get(d.of);
    stateBadge(this.state, d);
    const use = b ? `bulkhead (${b.isolation}) ${b.inFlight} of ${b.limit || "∞"} in flight, at most ${b.maxInFlight} lately, ${b.queued} queued, ${b.abandoned} abandoned` : "";
    set(this.sub, `${d.of} · ${rate(c.rate)} calls/s · ${percent(c.errors)} without an answer, ${percent(d.errorPercentage)} as the circuit judges · ${use}`);
    this.showMode(d);
    this.showEvidence(d);
    this.showHistory(c);
    if (this.asked) {
      this.showLatency(this.asked);
      this.showSettings(this.asked);
    }
    this.showCounts(d);
    this.timeline(this.list, this.model.events.filter((e) => e.command !== undefined && idOf(e.command, e.key) === c.id || e.action === "document").slice(-100).reverse(), false);
    this.override?.update(c);
  }

  showMode(d) {
    const o = d.override;
    const now = this.model.now();
    const left = o?.until ? span(o.until - now) : "";
    fresh(this.parts.mode, [d.mode, o, left], () => {
      if (d.mode === "auto" && !o) return [];
      const grade = d.mode === "force_open" ? 3 : 2;
      const what = { auto: "left to itself", force_open: "forced open: every call is refused", force_closed: "forced closed: none is refused", shadow: "shadow: what it would refuse is let pass, and counted" };
      return el("div", { className: "box", data: { grade } },
        el("p", { className: "big", textContent: "Circuit " + what[d.mode] }),
        o ? el("p", {}, o.inject ? "A drill is on. " : "", o.author ? "By " : "", o.author ? name(o.author) : "", o.reason ? (o.author ? ": " : "") : "", o.reason ? name(o.reason) : "") : el("p", { textContent: "By the settings." }),
        o && el("p", {}, ...(o.until ? ["Until ", moment(o.until), ` (${left} left)`] : ["Until it is lifted"])));
    });
  }

  showEvidence(d) {
    const e = d.evidence;
    const now = this.model.now();
    const open = d.state !== "closed" && d.mode !== "force_open";
    const left = e ? e.nextProbe - now : 0;
    const probe = !open || !e ? "" : d.state === "half_open" ? "probing now" : left > 0 ? span(left) : "due";
    fresh(this.parts.evidence, [e, open, probe, e && span(now - e.at)], () => {
      if (!e) return open || d.mode === "force_open" ? [] : el("p", { className: "sub", textContent: "This circuit has not opened yet." });
      const failed = !e.calls ? "it was half-open, and a probe failed"
        : `${exact(e.failures)} of ${exact(e.calls)} calls in the window failed (${percent((100 * e.failures) / e.calls)})` + (e.slow ? `, ${exact(e.slow)} were slow` : "");
      return el("div", { className: "box", data: { grade: open ? 3 : 0, part: "evidence" } },
        el("p", { className: "big" }, (open ? "Opened by " : "Last opened by ") + (e.rule === "probe" ? "a failed probe" : e.rule)),
        el("p", {}, moment(e.at), ` (${span(now - e.at)} ago): ${failed}`),
        e.lastError && el("p", {}, "Last error:", el("pre", {}, name(e.lastError))),
        el("p", { textContent: `${exact(e.refused)} refused since` }),
        open && el("p", { className: "big" }, ...(d.state === "half_open" ? ["Half-open: probing now"]
          : left > 0 ? ["Next probe in ", probe, ", at ", moment(e.nextProbe)]
          : ["The next call probes"])));
    });
  }

  showHistory(c) {
    const width = this.node.clientWidth - 34;
    if (width > 0) draw.history(this.canvas, c, width);
    const sums = groups.map(() => 0);
    let open = 0;
    for (let i = 0; i < buckets; i++) {
      for (let j = 0; j < groups.length; j++) sums[j] += c.history[i * groups.length + j];
      if (c.states[i] === 3) open++;
    }
    const all = sums.reduce((a, b) => a + b, 0);
    const label = `Outcomes of the last 15 minutes, as far as this page has seen them: ${exact(all)} calls` +
      groups.map((g, j) => (sums[j] ? `, ${exact(sums[j])} ${g.label}` : "")).join("") + `; open in ${open} of ${buckets} five-second steps`;
    if (this.canvas.getAttribute("aria-label") !== label) this.canvas.setAttribute("aria-label", label);
    const minutes = [];
    const per = buckets / 15;
    for (let m = 0; m < 15; m++) {
      const row = groups.map(() => 0);
      for (let i = 0; i < per; i++) {
        const slot = (c.bucket - m * per - i + buckets * 2) % buckets;
        for (let j = 0; j < groups.length; j++) row[j] += c.history[slot * groups.length + j];
      }
      minutes.push(row);
    }
    if (!this.minutes || this.minutes.parentNode === null) {
      this.minutes = el("details", {}, el("summary", { textContent: "As a table" }), el("div"));
      this.parts.minutes.replaceChildren(this.minutes);
    }
    if (!this.minutes.open) return;
    fresh(this.minutes.lastChild, minutes, () => table("Calls by minute", [["ago"], ...groups.map((g) => [g.label, "n"])],
      minutes.map((row, m) => el("tr", {}, el("th", { scope: "row", textContent: m ? `${m} min` : "now" }), ...row.map((n) => el("td", { className: "n", textContent: n ? exact(n) : "–" }))))));
  }

  showLatency({ run, call }) {
    fresh(this.parts.latency, [run.percentiles, call.percentiles], () => {
      const columns = ["mean", "p50", "p90", "p99", "p99.5", "max"];
      const row = (label, t) => el("tr", {}, el("th", { scope: "row", textContent: label }), ...columns.map((p) => el("td", { className: "n", textContent: duration(t.percentiles[p]) })));
      return table("Last minute; a call is a run with waiting and fallbacks", [["of"], ...columns.map((p) => [p, "n"])], [row("runs", run), row("calls", call)]);
    });
    fresh(this.parts.histogram, [run.below, call.below, run.count], () => {
      const each = (t) => [...t.below, t.count].map((n, i, all) => n - (i ? all[i - 1] : 0));
      const runs = each(run);
      const calls = each(call);
      const first = Math.max(0, runs.findIndex((n, i) => n || calls[i]));
      let last = runs.length - 1;
      while (last > first && !runs[last] && !calls[last]) last--;
      const most = Math.max(1, ...runs);
      const rows = [];
      for (let i = first; i <= last && run.count; i++) {
        const bar = el("i");
        bar.style.transform = `scaleX(${runs[i] / most})`;
        rows.push(el("tr", {},
          el("th", { scope: "row", className: "n", textContent: i < run.bounds.length ? "< " + duration(run.bounds[i]) : "longer" }),
          el("td", {}, el("div", { className: "bar", "aria-hidden": "true" }, bar)),
          el("td", { className: "n", textContent: count(runs[i]) }), el("td", { className: "n", textContent: count(calls[i]) })));
      }
      if (!rows.length) return el("p", { className: "sub", textContent: "No call was executed yet." });
      return table("Since the command was made", [["latency", "n"], ["share of runs"], ["runs", "n"], ["calls", "n"]], rows);
    });
  }

  showCounts(d) {
    const names = this.model.names;
    const rows = names.map((n, i) => [n, d.window[i] ?? 0, d.total[i] ?? 0]).filter((r) => r[2] || ["success", "failure", "timeout", "rejected", "short_circuited", "would_short_circuit"].includes(r[0]));
    const groupOf = (n) => groups.find((g) => g.of.includes(n))?.id ?? "other";
    fresh(this.parts.counts, [rows, d.inFlight, d.fallbacks], () => table(`${d.inFlight} running, ${d.fallbacks} in fallbacks now`, [["what"], ["rolling window", "n"], ["in all", "n"]],
      rows.map(([n, w, t]) => el("tr", { data: { said: t ? "yes" : "no" } },
        el("th", { scope: "row" }, el("span", { className: "swatch", data: { group: groupOf(n) }, "aria-hidden": "true" }), " " + (words[n] ?? n)),
        el("td", { className: "n", textContent: exact(w) }), el("td", { className: "n", textContent: exact(t) })))));
  }

  showSettings({ settings, order }) {
    fresh(this.parts.settings, settings, () => table("What holds, and who said it", [["setting"], ["value"], ["from"]],
      order.map((key) => {
        const { value, origin } = settings[key];
        return el("tr", { data: { said: origin === "default" ? "no" : "yes" } },
          el("th", { scope: "row", textContent: key }), el("td", { textContent: String(value) }), el("td", { textContent: origin }));
      })));
  }
}
