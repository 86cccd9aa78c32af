// Numbers and moments as people read them, and elements made of text alone.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const count = (n) => (n < 100000 ? whole.format(n) : compact.format(n));
export const exact = (n) => whole.format(n);

export function rate(perSecond) {
  if (perSecond >= 1000) return compact.format(perSecond);
  return short.format(perSecond >= 100 ? Math.round(perSecond) : perSecond);
}

export function percent(x) {
  if (x > 0 && x < 1) return "<1\u202f%";
  if (x > 99 && x < 100) return ">99\u202f%";
  return Math.round(x) + "\u202f%";
}

// duration of nanoseconds.
export function duration(ns) {
  if (!ns) return "–";
  for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) {
    if (ns >= size) return short.format(ns / size) + "\u202f" + unit;
  }
  return ns + "\u202fns";
}

// coarse is duration in as few digits as are worth reading at a glance.
export function coarse(ns) {
  if (!ns) return "–";
  for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) {
    if (ns >= size) return (ns >= 10 * size ? Math.round(ns / size) : (ns / size).toFixed(1)) + "\u202f" + unit;
  }
  return ns + "\u202fns";
}

// span of milliseconds, coarse: for what goes on.
export function span(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 10) return s.toFixed(1) + "\u202fs";
  if (s < 120) return Math.round(s) + "\u202fs";
  if (s < 7200) return Math.round(s / 60) + "\u202fmin";
  if (s < 172800) return Math.round(s / 3600) + "\u202fh";
  return Math.round(s / 86400) + "\u202fd";
}

const clockFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const dayFormat = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

// moment is an element that shows local time, and UTC when pointed at.
export function moment(ms) {
  const at = new Date(ms);
  const today = new Date().toDateString() === at.toDateString();
  return el("time", { dateTime: at.toISOString(), title: at.toISOString(), textContent: (today ? clockFormat : dayFormat).format(at) });
}

// el makes an element. Children are elements or text; nothing is ever read as markup.
export function el(tag, properties, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (name === "data") Object.assign(e.dataset, value);
    else if (name in e) e[name] = value;
    else e.setAttribute(name, value);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined && c !== false));
  return e;
}

// name is a text that others made: kept apart from the direction of what is around it.
export const name = (text) => el("bdi", { textContent: text });

// set puts a text, and tells the browser nothing if it is there already.
export function set(node, text) {
  if (node.shown !== text) {
    node.shown = text;
    node.textContent = text;
  }
}

const svg = "http://www.w3.org/2000/svg";
const shapes = {
  closed: "M8 1.5a6.5 6.5 0 1 1 0 13a6.5 6.5 0 0 1 0-13zM4.6 8.2l2.4 2.4l4.4-5",
  open: "M5.3 1.5h5.4l3.8 3.8v5.4l-3.8 3.8h-5.4l-3.8-3.8v-5.4zM5.5 5.5l5 5M10.5 5.5l-5 5",
  half_open: "M8 1.5L14.8 14H1.2zM8 6v4M8 12v.2",
  shadow: "M2 2h12v12h-12zM5 8h6",
  force_closed: "M2 2h12v12h-12zM5 8l2 2.5l4-5",
};

// shape is a state's sign: a disc, an octagon, a triangle, a square.
export function shape(state) {
  const s = document.createElementNS(svg, "svg");
  s.setAttribute("viewBox", "0 0 16 16");
  s.setAttribute("class", "shape");
  s.setAttribute("aria-hidden", "true");
  const p = document.createElementNS(svg, "path");
  p.setAttribute("d", shapes[state] ?? shapes.closed);
  s.append(p);
  return s;
}
