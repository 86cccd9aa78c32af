package main

import (
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"
)

// A plot is an SVG in the making: a frame, with scales from values to places in it.
type plot struct {
	b             strings.Builder
	width, height float64
	x, y          scale
}

const plotLeft, plotRight, plotTop, plotBottom = 52, 96, 14, 30 // room for what is written at each side

// A scale maps from..to to a stretch of the picture.
type scale struct {
	from, to, begins, ends float64
	log                    bool
}

func (s scale) at(v float64) float64 {
	v = min(max(v, s.from), s.to)
	part := (v - s.from) / (s.to - s.from)
	if s.log {
		part = math.Log(v/s.from) / math.Log(s.to/s.from)
	}
	return s.begins + part*(s.ends-s.begins)
}

func newPlot(title string, x, y scale) *plot {
	p := &plot{width: 520, height: 240, x: x, y: y}
	p.x.begins, p.x.ends = plotLeft, p.width-plotRight
	p.y.begins, p.y.ends = p.height-plotBottom, plotTop
	fmt.Fprintf(&p.b, `<svg viewBox="0 0 %v %v" role="img" aria-label="%s">`, p.width, p.height, template.HTMLEscapeString(title))
	return p
}

func (p *plot) band(from, to float64) {
	fmt.Fprintf(&p.b, `<rect class="incident" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`,
		p.x.at(from), p.y.ends, p.x.at(to)-p.x.at(from), p.y.begins-p.y.ends)
}

func (p *plot) yTick(v float64, label string) {
	y := p.y.at(v)
	fmt.Fprintf(&p.b, `<line class="axis" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text x="%.1f" y="%.1f" text-anchor="end">%s</text>`,
		p.x.begins, p.x.ends, y, y, p.x.begins-6, y+4, template.HTMLEscapeString(label))
}

func (p *plot) xTick(v float64, label string) {
	fmt.Fprintf(&p.b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, p.x.at(v), p.y.begins+18, template.HTMLEscapeString(label))
}

type point struct{ x, y float64 }

func (p *plot) line(class string, points []point) {
	var d strings.Builder
	for i, q := range points {
		fmt.Fprintf(&d, "%c%.1f %.1f", "ML"[min(i, 1)], p.x.at(q.x), p.y.at(q.y))
	}
	fmt.Fprintf(&p.b, `<path class="%s" d="%s"/>`, class, &d)
}

func (p *plot) dots(class string, radius float64, points []point, title func(point) string) {
	for _, q := range points {
		fmt.Fprintf(&p.b, `<circle class="%s" cx="%.1f" cy="%.1f" r="%v"><title>%s</title></circle>`,
			class, p.x.at(q.x), p.y.at(q.y), radius, template.HTMLEscapeString(title(q)))
	}
}

// labels stand to the right of the frame, one below the other if they would touch.
func (p *plot) labels(of ...label) {
	last := math.Inf(-1)
	if len(of) > 1 && p.y.at(of[0].at) > p.y.at(of[1].at) {
		of[0], of[1] = of[1], of[0]
	}
	for _, l := range of {
		last = max(p.y.at(l.at)+4, last+15)
		fmt.Fprintf(&p.b, `<text class="label-%s" x="%.1f" y="%.1f">%s</text>`, l.class, p.x.ends+6, last, template.HTMLEscapeString(l.text))
	}
}

type label struct {
	class, text string
	at          float64
}

// html is the plot; all that did not come from this file was escaped on its way in.
func (p *plot) html() template.HTML { return template.HTML(p.b.String() + "</svg>") }

// moments is how many there are in a timeline.
const moments = 40

func timePlot(title string, r *run, y scale) *plot {
	seconds := r.duration.Seconds()
	p := newPlot(title, scale{from: 0, to: seconds}, y)
	from, to := r.incident()
	p.band(from.Sub(r.start).Seconds(), to.Sub(r.start).Seconds())
	for _, part := range []float64{0, 0.25, 0.5, 0.75, 1} {
		p.xTick(part*seconds, fmt.Sprintf("%.3gs", part*seconds))
	}
	return p
}

// answeredPlot is how many pages were answered, over time.
func answeredPlot(of pair) template.HTML {
	p := timePlot("pages answered in "+of.guarded.Name, of.guarded, scale{from: 0, to: 100})
	for _, v := range []float64{0, 25, 50, 75, 100} {
		p.yTick(v, fmt.Sprintf("%.0f %%", v))
	}
	with := curve(of.guarded.timeline(moments, anyEndpoint), func(m moment) float64 { return m.answered })
	without := curve(of.bare.timeline(moments, anyEndpoint), func(m moment) float64 { return m.answered })
	p.line("without", without)
	p.line("with", with)
	p.labels(label{"with", "with", mean(with)}, label{"without", "without", mean(without)})
	return p.html()
}

// latencyPlot is the 99th percentile of the neighbours, or of all if there are none.
func latencyPlot(of pair) template.HTML {
	p := timePlot("p99 in "+of.guarded.Name, of.guarded, scale{from: 5, to: 3000, log: true})
	for _, d := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second, patience} {
		p.yTick(milliseconds(d), short(d))
	}
	which := anyEndpoint
	if len(of.guarded.neighbours()) > 0 {
		which = isNeighbour(of.guarded.ill())
	}
	ms := func(m moment) float64 { return milliseconds(m.p99) }
	with, without := curve(of.guarded.timeline(moments, which), ms), curve(of.bare.timeline(moments, which), ms)
	p.line("without", without)
	p.line("with", with)
	p.labels(label{"with", "with", lastY(with)}, label{"without", "without", lastY(without)})
	return p.html()
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }

func curve(ms []moment, y func(moment) float64) []point {
	points := make([]point, len(ms))
	for i, m := range ms {
		points[i] = point{m.at.Seconds(), y(m)}
	}
	return points
}

func mean(points []point) float64 {
	sum := 0.0
	for _, q := range points {
		sum += q.y / float64(len(points))
	}
	return sum
}

func lastY(points []point) float64 {
	if len(points) == 0 {
		return 0
	}
	return points[len(points)-1].y
}

// availabilityPlot has the arithmetic as a line, and what was simulated and measured.
func availabilityPlot(rows []availability) template.HTML {
	p := newPlot("pages that have all they need, by dependencies", scale{from: 0, to: float64(len(rows))}, scale{from: 99.6, to: 100})
	for _, v := range []float64{99.6, 99.7, 99.8, 99.9, 100} {
		p.yTick(v, fmt.Sprintf("%.1f %%", v))
	}
	for n := 0; n <= len(rows); n += 5 {
		p.xTick(float64(n), fmt.Sprint(n))
	}
	series := func(y func(availability) float64) (points []point) {
		for _, r := range rows {
			points = append(points, point{float64(r.dependencies), y(r)})
		}
		return points
	}
	law := series(func(r availability) float64 { return r.arithmetic })
	simulated := series(func(r availability) float64 { return r.simulated })
	bare := series(func(r availability) float64 { return r.bare })
	mended := series(func(r availability) float64 { return r.fallbacks })
	say := func(what string) func(point) string {
		return func(q point) string { return fmt.Sprintf("%s, %.0f dependencies: %.3f %%", what, q.x, q.y) }
	}
	p.line("law", law)
	p.dots("ring", 4.5, simulated, say("simulated"))
	p.dots("dot-without", 2.5, bare, say("measured"))
	p.dots("dot-with", 2.5, mended, say("measured, with fallbacks"))
	p.labels(label{"with", "with fallbacks", lastY(mended)}, label{"without", "without", lastY(bare)})
	return p.html()
}
