// What the page knows: the last picture, and what it has made of those before.

export const lineTime = 120e3; // of a tile's line, ms
export const historyTime = 900e3;
const bucketTime = 5e3;
export const buckets = historyTime / bucketTime;

// groups of outcomes, as they are drawn and coloured; each has a letter on the axis of
// colour-blindness: its name stands beside every colour.
export const groups = [
  { id: "success", label: "success", of: ["success"] },
  { id: "expected", label: "expected", of: ["expected"] },
  { id: "failure", label: "failure", of: ["failure", "panic"] },
  { id: "timeout", label: "timeout", of: ["timeout"] },
  { id: "rejected", label: "rejected", of: ["rejected"] },
  { id: "short", label: "short-circuited", of: ["short_circuited"] },
  { id: "other", label: "other", of: [] },
];
const bad = ["failure", "panic", "timeout", "rejected", "short_circuited", "shutdown"];
const outcomes = 12;

export const idOf = (command, key) => command + "\u0000" + (key ?? "");

// Command is one, and its history.
export class Command {
  constructor(id, capacity) {
    this.id = id;
    this.times = new Float64Array(capacity); // a ring, of moments and rates
    this.rates = new Float32Array(capacity);
    this.next = 0;
    this.rate = 0;
    this.history = new Float32Array(buckets * groups.length);
    this.states = new Uint8Array(buckets); // the worst in each: 0 unseen, 1 closed, 2 half-open, 3 open
    this.bucket = 0; // the number of the newest, since 1970
    this.calls = 0;
    this.version = 0;
  }
}

export class Model {
  constructor() {
    this.commands = new Map();
    this.dependencies = new Map();
    this.events = [];
    this.names = [];
    this.at = 0;
    this.offset = 0; // the server's clock less ours
    this.greeting = null;
    this.leftOut = 0;
    this.draining = false;
  }

  now() {
    return Date.now() + this.offset;
  }

  // apply takes a message in, and returns the events that are new.
  apply(message, whole) {
    const last = this.at;
    this.at = message.at;
    this.offset = message.at - Date.now();
    this.leftOut = message.leftOut ?? 0;
    this.draining = message.draining ?? false;
    if (whole) {
      this.greeting = { title: message.title, interval: message.interval, operator: message.operator ?? "", assets: message.assets };
      this.names = message.counts;
      this.index = new Map(this.names.map((name, i) => [name, i]));
      this.groupOf = this.names.slice(0, outcomes).map((name) => {
        const g = groups.findIndex((group) => group.of.includes(name));
        return g < 0 ? groups.length - 1 : g;
      });
      this.bad = bad.map((name) => this.index.get(name));
    }
    const seen = new Set();
    for (const item of message.set ?? []) {
      if (item.command === undefined) {
        this.dependencies.set(item.dependency, item);
        if (whole) seen.add("d" + item.dependency);
        continue;
      }
      const id = idOf(item.command, item.key);
      seen.add(id);
      let c = this.commands.get(id);
      if (!c) {
        c = new Command(id, Math.min(1200, Math.ceil(lineTime / this.greeting.interval) + 3));
        this.commands.set(id, c);
      }
      c.was = c.data;
      c.data = item;
      c.fresh = true;
    }
    for (const gone of message.gone ?? []) this.commands.delete(idOf(gone.command, gone.key));
    if (whole) {
      for (const id of this.commands.keys()) if (!seen.has(id)) this.commands.delete(id);
      for (const d of this.dependencies.keys()) if (!seen.has("d" + d)) this.dependencies.delete(d);
    }
    for (const c of this.commands.values()) this.step(c, last);
    return this.remember(message.events ?? []);
  }

  remember(events) {
    const known = this.events.length ? this.events[this.events.length - 1].n : 0;
    // After a restart of the server numbers begin again.
    const restarted = events.length > 0 && events[events.length - 1].n < known;
    if (restarted) this.events = [];
    const fresh = restarted ? events : events.filter((e) => e.n > known);
    this.events.push(...fresh);
    if (this.events.length > 1000) this.events.splice(0, this.events.length - 1000);
    return fresh;
  }

  // step adds the time since the last picture to a command's history.
  step(c, last) {
    const d = c.data;
    const total = d.total;
    let calls = 0;
    for (let i = 0; i < outcomes; i++) calls += total[i] ?? 0;
    const before = c.fresh ? c.was?.total : total;
    c.fresh = false;
    this.roll(c);
    if (before && last && this.at > last) {
      const again = calls < c.calls; // the command is another one of its name
      const delta = again ? calls : calls - c.calls;
      c.times[c.next] = this.at;
      c.rates[c.next] = (delta * 1000) / (this.at - last);
      c.next = (c.next + 1) % c.times.length;
      c.rate = this.lately(c);
      if (delta > 0) {
        const slot = (c.bucket % buckets) * groups.length;
        for (let i = 0; i < outcomes; i++) {
          const n = (total[i] ?? 0) - (again ? 0 : (before[i] ?? 0));
          if (n > 0) c.history[slot + this.groupOf[i]] += n;
        }
      }
    } else {
      c.rate = this.windowCalls(d) / 10;
    }
    c.calls = calls;
    const slot = c.bucket % buckets;
    c.states[slot] = Math.max(c.states[slot], d.state === "open" ? 3 : d.state === "half_open" ? 2 : 1);
    this.judge(c);
    c.version++;
  }

  // lately is the mean rate of the last ten seconds: of one picture it would jump.
  lately(c) {
    const n = c.times.length;
    let sum = 0;
    let of = 0;
    for (let i = 1; i <= n; i++) {
      const j = (c.next - i + n) % n;
      if (c.times[j] <= this.at - 10e3) break;
      sum += c.rates[j];
      of++;
    }
    return of ? sum / of : 0;
  }

  // roll makes room in the history for now.
  roll(c) {
    const bucket = Math.floor(this.at / bucketTime);
    if (c.bucket === 0) c.bucket = bucket;
    const steps = Math.min(bucket - c.bucket, buckets);
    for (let i = 1; i <= steps; i++) {
      const slot = (bucket - steps + i) % buckets;
      c.history.fill(0, slot * groups.length, (slot + 1) * groups.length);
      c.states[slot] = 0;
    }
    if (bucket > c.bucket) c.bucket = bucket;
  }

  windowCalls(d) {
    let n = 0;
    for (let i = 0; i < outcomes; i++) n += d.window[i] ?? 0;
    return n;
  }

  window(d, name) {
    return d.window[this.index.get(name)] ?? 0;
  }

  total(d, name) {
    return d.total[this.index.get(name)] ?? 0;
  }

  // judge says what there is to see of a command, the gravest first: 3 the circuit
  // refuses, 2 calls come to harm, 1 somebody did something.
  judge(c) {
    const d = c.data;
    const b = this.dependencies.get(d.of);
    const calls = this.windowCalls(d);
    let unanswered = 0;
    for (const i of this.bad) unanswered += d.window[i] ?? 0;
    c.windowCalls = calls;
    c.errors = calls ? (100 * unanswered) / calls : 0;
    const p = [];
    const add = (grade, text) => p.push({ grade, text });
    if (d.mode === "force_open") add(3, "forced open");
    else if (d.state === "open") add(d.mode === "shadow" ? 2 : 3, d.mode === "shadow" ? "would be open" : "open");
    else if (d.state === "half_open") add(3, "half-open");
    // One call of two that failed is no outage.
    if (c.errors >= 50) add(unanswered >= 10 ? 3 : 2, percent10(c.errors) + " errors");
    else if (c.errors >= 10 && unanswered > 1) add(2, percent10(c.errors) + " errors");
    const rejected = this.window(d, "rejected");
    if (rejected) add(2, rejected + " rejected");
    const panics = this.window(d, "panic");
    if (panics) add(2, panics + " panics");
    const unhelped = this.window(d, "fallback_failure") + this.window(d, "fallback_rejected");
    if (unhelped) add(2, unhelped + " fallbacks failed");
    if (b && b.limit && b.inFlight >= 0.9 * b.limit && b.inFlight > 1) add(2, "bulkhead " + b.inFlight + " of " + b.limit);
    if (b && b.abandoned) add(1, b.abandoned + " abandoned");
    const spared = this.window(d, "would_short_circuit");
    if (spared) add(1, spared + " would be refused");
    if (d.mode === "force_closed") add(1, "forced closed");
    if (d.mode === "shadow") add(1, "shadow");
    if (d.override) add(1, d.override.inject ? "drill" : "override");
    p.sort((a, b) => b.grade - a.grade);
    c.problems = p;
    c.grade = p.length ? p[0].grade : 0;
  }
}

const percent10 = (x) => Math.round(x) + "\u202f%";

export const orders = {
  errors: (a, b) => b.grade - a.grade || Math.round(b.errors) - Math.round(a.errors) || b.rate - a.rate,
  volume: (a, b) => b.windowCalls - a.windowCalls,
  latency: (a, b) => b.data.latency[3] - a.data.latency[3],
  name: () => 0,
};

// compare orders commands; equal ones by name.
export function compare(order) {
  return (a, b) => orders[order](a, b) || (a.data.name < b.data.name ? -1 : a.data.name > b.data.name ? 1 : 0);
}
