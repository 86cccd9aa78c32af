// What operators do. The page only asks: who may do what is the server's to say.

import { el, exact, name } from "./text.js";

// ask asks the operator's handler, and returns its answer or throws what is wrong.
async function ask(model, what, body) {
  const base = model.greeting.operator;
  const r = await fetch(base + what, body === undefined ? { cache: "no-store" } : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  let answer = null;
  try {
    answer = await r.json();
  } catch {
    // An answer of something in between.
  }
  if (!r.ok) throw new Error(answer?.faults?.join("\n") ?? `${r.status} ${r.statusText}`);
  return answer;
}

const lines = (text) => text.split("\n").map((line) => el("p", { className: "faults" }, name(line)));

// Override is the form for one command's.
export class Override {
  constructor(node, model, c, done) {
    this.model = model;
    this.c = c;
    this.done = done;
    this.body = el("div", { className: "act", "aria-live": "polite" });
    const begin = el("button", { type: "button", textContent: "Operate this circuit" });
    begin.addEventListener("click", () => this.begin());
    this.body.append(begin);
    node.replaceChildren(el("h3", { textContent: "Operator" }), this.body);
  }

  async begin() {
    try {
      this.author = (await ask(this.model, "session")).author;
    } catch (err) {
      this.body.replaceChildren(...lines(err.message), el("p", { className: "sub", textContent: "The page stays read-only." }));
      return;
    }
    this.mode = el("select", { "aria-label": "Mode" }, ...[
      ["force_open", "Force open: refuse every call"], ["force_closed", "Force closed: refuse none"],
      ["shadow", "Shadow: refuse none, count what would be"], ["auto", "Auto: left to itself"],
    ].map(([value, text]) => el("option", { value, textContent: text })));
    this.length = el("select", { "aria-label": "For how long" }, ...[
      ["5m", "5 minutes"], ["15m", "15 minutes"], ["1h", "an hour"], ["4h", "4 hours"], ["24h", "a day"], ["unlimited", "until it is lifted"],
    ].map(([value, text]) => el("option", { value, textContent: text })));
    this.length.value = "15m";
    this.reason = el("input", { type: "text", maxLength: 200, placeholder: "Reason", "aria-label": "Reason", autocomplete: "off" });
    this.put = el("button", { type: "button", textContent: "Set override" });
    this.lift = el("button", { type: "button", textContent: "Lift override" });
    this.said = el("div");
    this.put.addEventListener("click", () => this.act(this.put, this.mode.value));
    this.lift.addEventListener("click", () => this.act(this.lift, "lift"));
    for (const field of [this.mode, this.length, this.reason]) field.addEventListener("input", () => this.calm());
    this.body.replaceChildren(
      el("p", {}, "As ", name(this.author), ". What you do is recorded."),
      el("div", { className: "row" }, this.mode, this.length), el("div", { className: "row" }, this.reason),
      el("div", { className: "row" }, this.put, this.lift), this.said);
    this.update(this.c);
    this.mode.focus();
  }

  update(c) {
    this.c = c;
    if (this.lift) this.lift.disabled = !c.data.override;
  }

  calm() {
    for (const b of [this.put, this.lift]) {
      if (b.armed) b.textContent = b.armed;
      b.armed = "";
      b.classList.remove("grave");
    }
  }

  // act wants to be asked twice.
  async act(button, mode) {
    const d = this.c.data;
    if (!this.reason.value.trim()) {
      this.said.replaceChildren(...lines("a reason is needed"));
      this.reason.focus();
      return;
    }
    if (!button.armed) {
      this.calm();
      button.armed = button.textContent;
      button.textContent = "Confirm: " + (mode === "lift" ? "lift the override" : this.mode.selectedOptions[0].textContent.toLowerCase()) + " – " + d.name;
      button.classList.add("grave");
      return;
    }
    this.calm();
    button.disabled = true;
    try {
      await ask(this.model, "override", { command: d.command, key: d.key ?? "", mode, reason: this.reason.value, for: mode === "lift" ? "" : this.length.value });
      this.reason.value = "";
      this.said.replaceChildren(el("p", { className: "ok", textContent: "Done." }));
      this.done();
    } catch (err) {
      this.said.replaceChildren(...lines(err.message));
    }
    button.disabled = false;
    this.update(this.c);
  }
}

// Settings is the editor of the document in force.
export class Settings {
  constructor(node, model) {
    this.node = node;
    this.model = model;
  }

  async open() {
    this.node.replaceChildren(el("p", { textContent: "Reading …" }));
    try {
      this.author = (await ask(this.model, "session")).author;
      await this.load();
    } catch (err) {
      this.node.replaceChildren(...lines(err.message));
    }
  }

  async load() {
    const { document: doc, base, unclaimed } = await ask(this.model, "document");
    this.base = base;
    this.text = el("textarea", { spellcheck: false, "aria-label": "The document, as JSON", value: JSON.stringify(doc, null, 2) });
    this.reason = el("input", { type: "text", maxLength: 200, placeholder: "Reason", "aria-label": "Reason", autocomplete: "off" });
    this.look = el("button", { type: "button", textContent: "Preview" });
    this.put = el("button", { type: "button", className: "grave", textContent: "Put in force", disabled: true });
    this.said = el("div", { "aria-live": "polite" });
    this.text.addEventListener("input", () => {
      this.put.disabled = true; // what was looked at is not what is there
    });
    this.look.addEventListener("click", () => this.preview());
    this.put.addEventListener("click", () => this.apply());
    this.node.replaceChildren(
      el("p", { className: "sub" }, "As ", name(this.author), ". What the document does not say is as the code has it. Keys: ", el("code", { textContent: "defaults, dependencies, commands" }), "."),
      unclaimed.length ? el("p", { className: "faults" }, "Names that nothing has: ", name(unclaimed.join(", "))) : "",
      this.text, el("div", { className: "act" }, el("div", { className: "row" }, this.reason, this.look, this.put), this.said));
    this.text.focus();
  }

  parse() {
    // Numbers and keys are the server's to judge; here is told only what is no JSON.
    JSON.parse(this.text.value);
    return this.text.value;
  }

  // send writes the document into a request as it was typed, so that the server sees
  // what JSON.parse would drop, such as a key given twice.
  send(what, rest) {
    const base = this.model.greeting.operator;
    const fields = Object.entries(rest).map(([k, v]) => `,${JSON.stringify(k)}:${JSON.stringify(v)}`).join("");
    return fetch(base + what, { method: "POST", headers: { "Content-Type": "application/json" }, body: `{"document":${this.parse()}${fields}}` })
      .then(async (r) => {
        const answer = await r.json().catch(() => null);
        if (!r.ok) throw new Error(answer?.faults?.join("\n") ?? `${r.status} ${r.statusText}`);
        return answer;
      });
  }

  async preview() {
    this.put.disabled = true;
    const typed = this.text.value;
    try {
      const p = await this.send("preview", {});
      const who = (n) => n.first.slice(0, 8).join(", ") + (n.count > 8 ? ` and ${exact(n.count - 8)} more` : "");
      const value = (v) => (v === undefined ? "not known: as the code has it" : String(v));
      const parts = [];
      if (p.base !== this.base) parts.push(...lines("the document in force has changed since you opened this: close and open again"));
      parts.push(p.changes.length
        ? el("table", {}, el("caption", { textContent: "What changes" }), el("thead", {}, el("tr", {}, ...["setting", "now", "then", "by", "commands"].map((t) => el("th", { scope: "col", textContent: t })))),
          el("tbody", {}, ...p.changes.map((c) => el("tr", {}, el("th", { scope: "row", textContent: c.setting }),
            el("td", { textContent: `${String(c.was)} (${c.wasOrigin})` }), el("td", { textContent: value(c.becomes) }), el("td", { textContent: c.origin }),
            el("td", {}, name(who(c.commands)))))))
        : el("p", { textContent: "Nothing changes." }));
      for (const m of p.masked) parts.push(el("p", {}, el("b", { textContent: m.setting }), ` in ${m.origin} is not heard: ${m.by ?? "something above"} says it for `, name(who(m.commands))));
      if (p.unclaimed.length) parts.push(el("p", { className: "faults" }, "Names that nothing has: ", name(p.unclaimed.join(", "))));
      this.said.replaceChildren(...parts);
      this.put.disabled = typed !== this.text.value;
    } catch (err) {
      this.said.replaceChildren(...lines(err.message));
    }
  }

  async apply() {
    if (!this.reason.value.trim()) {
      this.said.prepend(...lines("a reason is needed"));
      this.reason.focus();
      return;
    }
    this.put.disabled = true;
    try {
      await this.send("document", { base: this.base, reason: this.reason.value });
      await this.load();
      this.said.replaceChildren(el("p", { className: "ok", textContent: "In force." }));
    } catch (err) {
      this.said.replaceChildren(...lines(err.message));
    }
  }
}
