package hystrixstream

import (
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/firebreak-go/firebreak"
)

// An encoder appends JSON to text, by hand: fields come in the order in which they are
// written, and a sample of 200 commands allocates nothing for it.
type encoder struct {
	text    []byte
	reading reading // the command that is being read
	pools   []pool  // those of the sample in the making
}

// begin and finish are around the object of one line.
func (e *encoder) begin() { e.text = append(e.text, "data: {"...) }

func (e *encoder) finish() { e.text = append(e.text, "}\n\n"...) }

// comma goes before every field but an object's first.
func (e *encoder) comma() {
	if e.text[len(e.text)-1] != '{' { // a string that ends so has its quote behind it
		e.text = append(e.text, ',')
	}
}

// field begins a field. Its name is one of ours, with nothing to escape.
func (e *encoder) field(name string) {
	e.comma()
	e.text = append(e.text, '"')
	e.text = append(e.text, name...)
	e.text = append(e.text, '"', ':')
}

// object begins a field that is an object; close ends it.
func (e *encoder) object(name string) {
	e.field(name)
	e.text = append(e.text, '{')
}

// named is object under a name that a user gave.
func (e *encoder) named(name string) {
	e.comma()
	e.text = appendString(e.text, name)
	e.text = append(e.text, ':', '{')
}

func (e *encoder) close() { e.text = append(e.text, '}') }

func (e *encoder) string(name, value string) {
	e.field(name)
	e.text = appendString(e.text, value)
}

func (e *encoder) bool(name string, value bool) {
	e.field(name)
	e.text = strconv.AppendBool(e.text, value)
}

func (e *encoder) null(name string) {
	e.field(name)
	e.text = append(e.text, "null"...)
}

// int is a number that whoever reads it may keep in 32 bits.
func (e *encoder) int(name string, value int64) {
	e.field(name)
	e.text = strconv.AppendInt(e.text, min(value, math.MaxInt32), 10)
}

// long is a number that is a long there.
func (e *encoder) long(name string, value uint64) {
	e.field(name)
	e.text = strconv.AppendUint(e.text, value, 10)
}

// limit is a setting that can be Off or Unlimited.
func (e *encoder) limit(name string, value int) { e.int(name, int64(bound(value))) }

// bound is a limit as a number.
func bound(limit int) int {
	switch limit {
	case firebreak.Off:
		return 0
	case firebreak.Unlimited:
		return math.MaxInt32
	}
	return limit
}

// setting is a duration in milliseconds, rounded up, since 0 is Off.
func (e *encoder) setting(name string, d time.Duration) {
	if d == firebreak.Off {
		d = 0
	}
	ms := d / time.Millisecond
	if d%time.Millisecond > 0 {
		ms++
	}
	e.int(name, int64(ms))
}

// latencies are the two fields of one.
func (e *encoder) latencies(name string, p *firebreak.Percentiles) {
	e.int(name+"_mean", p.Mean.Milliseconds())
	e.object(name)
	e.int("0", p.Min.Milliseconds())
	e.int("25", p.P25.Milliseconds())
	e.int("50", p.P50.Milliseconds())
	e.int("75", p.P75.Milliseconds())
	e.int("90", p.P90.Milliseconds())
	e.int("95", p.P95.Milliseconds())
	e.int("99", p.P99.Milliseconds())
	e.int("99.5", p.P995.Milliseconds())
	e.int("100", p.Max.Milliseconds())
	e.close()
}

func (e *encoder) sizes(name string, s *firebreak.Sizes) {
	e.int(name+"_mean", int64(s.Mean))
	e.object(name)
	e.int("25", int64(s.P25))
	e.int("50", int64(s.P50))
	e.int("75", int64(s.P75))
	e.int("90", int64(s.P90))
	e.int("95", int64(s.P95))
	e.int("99", int64(s.P99))
	e.int("99.5", int64(s.P995))
	e.int("100", int64(s.Max))
	e.close()
}

// appendString appends s in quotes. Escaped is what JSON asks for, line ends among it,
// which would break the frame; what ends a line in JavaScript; and what begins
// something in HTML. Bytes that are no UTF-8 become U+FFFD.
func appendString(text []byte, s string) []byte {
	const hex = "0123456789abcdef"
	text = append(text, '"')
	done := 0 // what is appended already
	for i, r := range s {
		plain := r >= ' ' && r != '"' && r != '\\' && r != '<' && r != '>' && r != '&' && r != '\u2028' && r != '\u2029'
		size := utf8.RuneLen(r)
		if r == utf8.RuneError {
			_, size = utf8.DecodeRuneInString(s[i:])
			plain = size > 1 // it says U+FFFD itself
		}
		if plain {
			continue
		}
		text = append(text, s[done:i]...)
		done = i + size
		if r == '"' || r == '\\' {
			text = append(text, '\\', byte(r))
			continue
		}
		text = append(text, '\\', 'u', hex[r>>12&0xf], hex[r>>8&0xf], hex[r>>4&0xf], hex[r&0xf])
	}
	text = append(text, s[done:]...)
	return append(text, '"')
}
