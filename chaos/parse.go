package chaos

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxText bounds what Parse takes, and with it how deep its recursion goes: a
// stack that overflows cannot be recovered from.
const maxText = 4096

// Parse reads a fault as a person types it, and as [Fault.String] says it:
//
//	fault        = step { ";" step }                    Sequence
//	step         = "latency" distribution               Latency
//	             | "error" "\"text\""                   Error, of Go's quoted text
//	             | "open" | "reject" | "timeout" | "hang"
//	             | "(" fault ")"
//	             | P "%" step                           Chance
//	             | P "%" "to" P "%" "over" D step       Ramp
//	             | D "on" D "off" step                  Flap
//	             | "after" D step                       After
//	             | "growing" "over" D step              Grow
//	distribution = D                                    Constant
//	             | "uniform" D "to" D                   Uniform
//	             | "normal" D "sd" D                    Normal
//	             | "lognormal" D "p99" D                LogNormal
//	             | "exponential" D                      Exponential
//	             | "pareto" D "p99" D                   Pareto
//
// D is a duration like 250ms or 1h30m, P a number from 0 to 100; the % stands right
// behind it. Words are in lower case, with space between them. What says whom, when
// and how much takes the one step behind it; "(" and ")" make one of several. Ranges
// are those of the functions at the right.
//
// The text, and String's of the fault, has at most 4096 bytes. The error tells what
// is wrong and where. What Parse returns has a String that it reads as the same
// fault.
func Parse(text string) (Fault, error) {
	if len(text) > maxText {
		return Fault{}, fmt.Errorf("chaos: a fault of %d bytes; more than %d are refused", len(text), maxText)
	}
	p := parser{rest: text}
	p.next()
	f, err := p.fault()
	if err == nil && p.token != "" {
		err = errors.New("expected ; or the end")
	}
	if err == nil && len(f.text) > maxText {
		err = fmt.Errorf("with all that it implies it has %d bytes; more than %d are refused", len(f.text), maxText)
	}
	if err != nil {
		return Fault{}, fmt.Errorf("chaos: %s: %w", p.where(len(text)), err)
	}
	return f, nil
}

// A parser goes through a text, one token ahead.
type parser struct {
	token string // the next, "" at the end
	rest  string // what follows it
}

const space = " \t\r\n"

// next moves on to the token after this one: a quoted text, a sign or a word.
func (p *parser) next() {
	s := strings.TrimLeft(p.rest, space)
	n := strings.IndexAny(s, space+`;()"`)
	switch {
	case n < 0:
		n = len(s)
	case n > 0:
	case s[0] == '"':
		quoted, err := strconv.QuotedPrefix(s)
		if err != nil { // it does not end: let nothing come after it
			quoted = s
		}
		n = len(quoted)
	default:
		n = 1
	}
	p.token, p.rest = s[:n], s[n:]
}

// take takes the token, if it is that word.
func (p *parser) take(word string) bool {
	if p.token != word {
		return false
	}
	p.next()
	return true
}

func (p *parser) want(word string) error {
	if !p.take(word) {
		return fmt.Errorf("expected %s", word)
	}
	return nil
}

// where is the place of the token, for people, in a text of so many bytes.
func (p *parser) where(length int) string {
	if p.token == "" {
		return "at the end"
	}
	const enough = 40
	near, more := p.token, ""
	if len(near) > enough {
		near, more = near[:enough], "…"
	}
	return fmt.Sprintf("byte %d, at %q%s", length-len(p.rest)-len(p.token)+1, near, more)
}

func (p *parser) fault() (Fault, error) {
	var steps []Fault
	for {
		f, err := p.step()
		if err != nil {
			return Fault{}, err
		}
		steps = append(steps, f)
		if !p.take(";") {
			return sequence(steps)
		}
	}
}

func (p *parser) step() (Fault, error) {
	switch word := p.token; {
	case strings.HasSuffix(word, "%"):
		return p.chance()
	case word != "" && isDigit(word[0]):
		return p.flap()
	case p.take("("):
		f, err := p.fault()
		if err != nil {
			return Fault{}, err
		}
		return f, p.want(")")
	case p.take("latency"):
		d, err := p.distribution()
		if err != nil {
			return Fault{}, err
		}
		return latency(d)
	case p.take("error"):
		return p.error()
	case p.take("open"):
		return Open(), nil
	case p.take("reject"):
		return Reject(), nil
	case p.take("timeout"):
		return Timeout(), nil
	case p.take("hang"):
		return Hang(), nil
	case p.take("after"):
		d, err := p.duration(1)
		return p.over(err, func(f Fault) (Fault, error) { return after(d, f) })
	case p.take("growing"):
		err := p.want("over")
		var d time.Duration
		if err == nil {
			d, err = p.duration(1)
		}
		return p.over(err, func(f Fault) (Fault, error) { return grow(d, f) })
	case word == "only":
		return Fault{}, errors.New("whose calls they are only code can tell: wrap the fault in Only there")
	}
	return Fault{}, errors.New("expected latency, error, open, reject, timeout, hang, a percentage, " +
		"a duration on and off, after, growing or (")
}

// over is a combinator over the step that follows, unless something was wrong
// already.
func (p *parser) over(err error, combine func(Fault) (Fault, error)) (Fault, error) {
	if err != nil {
		return Fault{}, err
	}
	f, err := p.step()
	if err != nil {
		return Fault{}, err
	}
	return combine(f)
}

func (p *parser) chance() (Fault, error) {
	from, err := p.percentage()
	if err != nil {
		return Fault{}, err
	}
	if !p.take("to") {
		return p.over(nil, func(f Fault) (Fault, error) { return chance(from, f) })
	}
	to, err := p.percentage()
	if err == nil {
		err = p.want("over")
	}
	var d time.Duration
	if err == nil {
		d, err = p.duration(1)
	}
	return p.over(err, func(f Fault) (Fault, error) { return ramp(from, to, d, f) })
}

func (p *parser) flap() (Fault, error) {
	if _, err := time.ParseDuration(p.token); err != nil { // "20 %", it may be
		return Fault{}, errors.New("expected a percentage like 20%, or a duration like 10s")
	}
	on, err := p.duration(1)
	if err == nil {
		err = p.want("on")
	}
	var off time.Duration
	if err == nil {
		off, err = p.duration(1)
	}
	if err == nil {
		err = p.want("off")
	}
	return p.over(err, func(f Fault) (Fault, error) { return flap(on, off, f) })
}

func (p *parser) error() (Fault, error) {
	text, err := strconv.Unquote(p.token)
	if err != nil || p.token[0] != '"' {
		return Fault{}, errors.New(`expected the error's text in "quotes"`)
	}
	p.next()
	return Error(errors.New(text)), nil
}

func (p *parser) distribution() (Distribution, error) {
	switch {
	case p.take("uniform"):
		return p.pair("to", uniform)
	case p.take("normal"):
		return p.pair("sd", normal)
	case p.take("lognormal"):
		return p.pair("p99", logNormal)
	case p.take("pareto"):
		return p.pair("p99", pareto)
	case p.take("exponential"):
		d, err := p.duration(0)
		if err != nil {
			return Distribution{}, err
		}
		return exponential(d)
	case p.token == "" || !isDigit(p.token[0]):
		return Distribution{}, errors.New("expected a duration like 250ms, uniform, normal, lognormal, exponential or pareto")
	}
	d, err := p.duration(0)
	if err != nil {
		return Distribution{}, err
	}
	return constant(d)
}

// pair is a distribution of two durations with a word between them.
func (p *parser) pair(between string, of func(a, b time.Duration) (Distribution, error)) (Distribution, error) {
	first := *p
	a, err := p.duration(0)
	if err == nil {
		err = p.want(between)
	}
	var b time.Duration
	if err == nil {
		b, err = p.duration(0)
	}
	if err != nil {
		return Distribution{}, err
	}
	d, err := of(a, b)
	if err != nil {
		*p = first // where the trouble begins
	}
	return d, err
}

// duration takes one that is at least so long.
func (p *parser) duration(least time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(p.token)
	if err != nil || !isDigit(p.token[0]) { // "+1s" and ".5s" are fine for time, and one way is enough
		return 0, errors.New("expected a duration like 250ms")
	}
	if err := inRange("duration", d, least); err != nil {
		return 0, err
	}
	p.next()
	return d, nil
}

func (p *parser) percentage() (float64, error) {
	number, ok := strings.CutSuffix(p.token, "%")
	if !ok || number == "" || strings.Trim(number, "0123456789.e-+") != "" || !isDigit(number[0]) {
		return 0, errors.New("expected a percentage like 20%")
	}
	percentage, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, errors.New("expected a percentage like 20%")
	}
	if err := isPercentage(percentage); err != nil {
		return 0, err
	}
	p.next()
	return percentage, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
