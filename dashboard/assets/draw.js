// Drawing on canvas: a tile's disc and line, the history of the detail.

import { buckets, groups, historyTime, lineTime } from "./model.js";

let palette = null;

// colours reads the theme's, which are the style sheet's to say.
export function colours() {
  if (!palette) {
    const style = getComputedStyle(document.documentElement);
    const probe = document.createElement("i");
    document.body.append(probe);
    const of = (name) => {
      probe.style.color = `var(--${name})`;
      return getComputedStyle(probe).color;
    };
    palette = { font: style.fontFamily };
    for (const name of ["text", "faint", "line", "panel", "good", "watch", "warn", "bad", ...groups.map((g) => g.id)]) palette[name] = of(name);
    probe.remove();
  }
  return palette;
}

export function forgetColours() {
  palette = null;
}

export const health = (errors) => (errors >= 50 ? "bad" : errors >= 25 ? "warn" : errors >= 10 ? "watch" : "good");

// fit makes a canvas as fine as the screen, and returns its context.
function fit(canvas, width, height) {
  const ratio = Math.min(3, devicePixelRatio || 1);
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  return g;
}

// A line's points, for one tile after the other.
const xs = new Float32Array(1200);
const ys = new Float32Array(1200);

export const tileWidth = 104;
export const tileHeight = 52;

// tile draws a command's disc and its line. The disc's area is its share of four
// hundred calls a second, as the original had it, so that two tiles can be compared.
export function tile(canvas, c, at) {
  const g = fit(canvas, tileWidth, tileHeight);
  const p = colours();
  const r = c.rate > 0 ? 3 + 22 * Math.sqrt(Math.min(1, c.rate / 400)) : 2;
  g.beginPath();
  g.arc(28, tileHeight / 2, r, 0, 2 * Math.PI);
  g.globalAlpha = 0.3;
  g.fillStyle = p[health(c.errors)];
  g.fill();
  g.globalAlpha = 1;
  g.lineWidth = 1.5;
  g.strokeStyle = p[health(c.errors)];
  g.stroke();

  // Each point is the mean of three, so that a quiet command is a line and no comb.
  const n = c.times.length;
  let points = 0;
  let most = 1;
  for (let i = 0; i < n; i++) {
    const j = (c.next + i) % n;
    if (c.times[j] < at - lineTime) continue;
    let sum = c.rates[j];
    let of = 1;
    for (let back = 1; back <= 2 && points >= back; back++, of++) sum += c.rates[(j - back + n) % n];
    xs[points] = tileWidth - ((at - c.times[j]) / lineTime) * tileWidth;
    ys[points] = sum / of;
    most = Math.max(most, ys[points++]);
  }
  g.beginPath();
  for (let i = 0; i < points; i++) {
    const y = tileHeight - 3 - (ys[i] / most) * (tileHeight - 8);
    if (i) g.lineTo(xs[i], y);
    else g.moveTo(xs[i], y);
  }
  g.lineWidth = 1.25;
  g.lineJoin = "round";
  g.strokeStyle = p.text;
  g.stroke();
}

// history draws the outcomes of fifteen minutes, stacked, over a strip of states.
export function history(canvas, c, width) {
  const height = 150;
  const bottom = 30; // the strip and the times
  const g = fit(canvas, width, height);
  const p = colours();
  const n = groups.length;
  let most = 1;
  for (let i = 0; i < buckets; i++) {
    let sum = 0;
    for (let j = 0; j < n; j++) sum += c.history[i * n + j];
    most = Math.max(most, sum);
  }
  const top = 14;
  const w = width / buckets;
  for (let i = 0; i < buckets; i++) {
    const slot = (c.bucket + 1 + i) % buckets;
    const x = i * w;
    let y = height - bottom;
    for (let j = 0; j < n; j++) {
      const v = c.history[slot * n + j];
      if (!v) continue;
      const h = Math.max(0.75, (v / most) * (height - bottom - top));
      g.fillStyle = p[groups[j].id];
      g.fillRect(x, y - h, Math.max(1, w - 0.4), h);
      y -= h;
    }
    const s = c.states[slot];
    if (s) {
      // Height tells the state as well: low closed, middle half-open, full open.
      const h = [0, 2, 5, 9][s];
      g.fillStyle = [p.faint, p.good, p.warn, p.bad][s];
      g.fillRect(x, height - bottom + 14 - h, Math.ceil(w), h);
    }
  }
  g.strokeStyle = p.line;
  g.lineWidth = 1;
  g.beginPath();
  g.moveTo(0, height - bottom + 0.5);
  g.lineTo(width, height - bottom + 0.5);
  g.stroke();
  g.fillStyle = p.faint;
  g.font = "11px " + p.font;
  g.textAlign = "left";
  g.fillText(Math.round((most / historyTime) * buckets * 1000) + " calls/s", 2, 10);
  for (let m = 15; m >= 0; m -= 5) {
    g.textAlign = m === 15 ? "left" : m === 0 ? "right" : "center";
    g.fillText(m ? `−${m} min` : "now", width * (1 - m / 15), height - 3);
  }
}
