package firebreak

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// Document is settings as data, for [Registry.Update]: keys defaults,
// dependencies and commands, the last two by name. A keyed command is named
// without its key. What a Document does not say is as the code has it.
type Document struct {
	Defaults     Config            `json:"defaults,omitzero"`
	Dependencies map[string]Config `json:"dependencies,omitempty"`
	Commands     map[string]Config `json:"commands,omitempty"`
}

// clone is d apart from the caller's maps, without functions: data holds none.
func (d Document) clone() Document {
	return Document{Defaults: withoutFuncs(d.Defaults), Dependencies: cloneConfigs(d.Dependencies), Commands: cloneConfigs(d.Commands)}
}

func cloneConfigs(m map[string]Config) map[string]Config {
	c := make(map[string]Config, len(m))
	for name, config := range m {
		c[name] = withoutFuncs(config)
	}
	return c
}

func withoutFuncs(c Config) Config {
	c.Classify = nil
	return c
}

// check returns every fault of d that can be seen without a registry.
func (d *Document) check() []error {
	errs := prefixed("defaults", d.Defaults.checkAsData())
	for _, name := range slices.Sorted(maps.Keys(d.Dependencies)) {
		c := d.Dependencies[name]
		errs = append(errs, prefixed(fmt.Sprintf("dependency %q", name), c.checkAsData())...)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Commands)) {
		c := d.Commands[name]
		errs = append(errs, prefixed(fmt.Sprintf("command %q", name), append(c.checkAsData(), c.misplaced()...))...)
	}
	return errs
}

// checkAsData is check, and a function is a fault: it would be lost in silence.
func (c *Config) checkAsData() []error {
	errs := c.check()
	v := reflect.ValueOf(c).Elem()
	for _, f := range fields {
		if f.key == "" && !v.Field(f.index).IsZero() {
			errs = append(errs, fmt.Errorf("%s: a function is for code, not for a document", f.name))
		}
	}
	return errs
}

func prefixed(who string, errs []error) []error {
	for i, err := range errs {
		errs[i] = fmt.Errorf("%s: %w", who, err)
	}
	return errs
}

// MarshalJSON writes the fields that are said, in their order; Classify, a
// function, is left out.
func (c Config) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	err := c.each(func(key string, value any) error {
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Quote(key))
		b.WriteByte(':')
		b.Write(text)
		return nil
	})
	b.WriteByte('}')
	return b.Bytes(), err
}

// MarshalYAML is MarshalJSON for YAML packages that know this form of it (yaml.v2,
// yaml.v3 and others), which sort the keys. Without it they would write numbers
// without units, and stumble over Classify.
func (c Config) MarshalYAML() (any, error) {
	said := map[string]any{}
	err := c.each(func(key string, value any) error {
		said[key] = value
		return nil
	})
	return said, err
}

// each calls f for the fields that are said and have a key, in their order, with
// the value as text has it.
func (c Config) each(f func(key string, value any) error) error {
	v := reflect.ValueOf(c)
	for _, fd := range fields {
		x := v.Field(fd.index)
		if fd.key == "" || x.IsZero() {
			continue
		}
		value, err := fd.value(x)
		if err == nil {
			err = f(fd.key, value)
		}
		if err != nil {
			return fmt.Errorf("firebreak: %s: %w", fd.key, err)
		}
	}
	return nil
}

// value is a field's as text has it: a word, a number, true or false. One that is
// out of range has none: it could not be read back.
func (f *field) value(v reflect.Value) (any, error) {
	if why := f.fault(v); why != "" {
		return nil, errors.New(why)
	}
	switch x := v.Interface().(type) {
	case time.Duration:
		if x != Off {
			return x.String(), nil
		}
	case Switch:
		return x == On, nil
	case int:
		if x == Unlimited {
			return "unlimited", nil
		}
		if x != Off {
			return x, nil
		}
	case float64:
		if x != Off {
			return x, nil
		}
	case fmt.Stringer: // an enumeration
		return x.String(), nil
	}
	return "off", nil
}

// UnmarshalJSON reads an object of settings. Its error names every unknown or
// repeated key, every duration without a unit and every value out of range; c is
// then left as it was. What c said before is gone, its functions too.
func (c *Config) UnmarshalJSON(data []byte) error {
	return c.decode(parseJSON(data))
}

// UnmarshalYAML is UnmarshalJSON for YAML packages that know this form of it (yaml.v2, yaml.v3 and others).
func (c *Config) UnmarshalYAML(unmarshal func(any) error) error {
	return c.decode(parseYAML(unmarshal))
}

func (c *Config) decode(data any, err error) error {
	if err != nil {
		return fmt.Errorf("firebreak: settings: %w", err)
	}
	read, errs := configOf(data, false)
	if len(errs) > 0 {
		return fmt.Errorf("firebreak: settings: %w", errors.Join(errs...))
	}
	*c = read
	return nil
}

// UnmarshalJSON reads a document. Its error names every fault with the command
// or dependency and the field; d is then left as it was.
func (d *Document) UnmarshalJSON(data []byte) error {
	return d.decode(parseJSON(data))
}

// UnmarshalYAML is UnmarshalJSON for YAML packages that know this form of it (yaml.v2, yaml.v3 and others).
func (d *Document) UnmarshalYAML(unmarshal func(any) error) error {
	return d.decode(parseYAML(unmarshal))
}

func (d *Document) decode(data any, err error) error {
	if err != nil {
		return fmt.Errorf("firebreak: document: %w", err)
	}
	read, errs := documentOf(data)
	if len(errs) > 0 {
		return fmt.Errorf("firebreak: document: %w", errors.Join(errs...))
	}
	*d = read
	return nil
}

func documentOf(data any) (d Document, errs []error) {
	top, errs := object(data)
	named := func(key, what string) map[string]Config {
		all, faults := object(top[key])
		errs = append(errs, prefixed(key, faults)...)
		configs := make(map[string]Config, len(all))
		for _, name := range slices.Sorted(maps.Keys(all)) {
			c, faults := configOf(all[name], key == "commands")
			errs = append(errs, prefixed(fmt.Sprintf("%s %q", what, name), faults)...)
			configs[name] = c
		}
		return configs
	}
	for _, key := range slices.Sorted(maps.Keys(top)) {
		switch key {
		case "defaults":
			c, faults := configOf(top[key], false)
			errs = append(errs, prefixed(key, faults)...)
			d.Defaults = c
		case "dependencies":
			d.Dependencies = named(key, "dependency")
		case "commands":
			d.Commands = named(key, "command")
		default:
			errs = append(errs, fmt.Errorf("%q: unknown key; there are defaults, dependencies and commands", key))
		}
	}
	return d, errs
}

func configOf(data any, ofCommand bool) (c Config, errs []error) {
	all, errs := object(data)
	v := reflect.ValueOf(&c).Elem()
	for _, key := range slices.Sorted(maps.Keys(all)) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.key != "" && f.key == key })
		if i < 0 {
			errs = append(errs, fmt.Errorf("%q: unknown key", key))
			continue
		}
		f := &fields[i]
		if ofCommand && f.dependency {
			errs = append(errs, fmt.Errorf("%s %s", key, isMisplaced))
			continue
		}
		if err := f.set(v.Field(f.index), all[key]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	return c, errs
}

// set reads one value, as JSON and YAML packages give it, into the field. Zero
// has no text: absence is how to say nothing.
func (f *field) set(to reflect.Value, data any) error {
	switch data.(type) {
	case nil:
		return errors.New("null says nothing: leave the key out")
	case twice:
		return errTwice
	}
	// YAML 1.1 reads off as false.
	off := data == "off" || data == false
	var err error
	switch to.Interface().(type) {
	case time.Duration:
		var d time.Duration
		if d, err = durationOf(data, off); err == nil {
			to.SetInt(int64(d))
		}
	case int, float64:
		var x float64
		if x, err = numberOf(data, off, f.unlimited, to.Kind() == reflect.Int); err == nil {
			if to.Kind() == reflect.Int {
				to.SetInt(int64(x))
			} else {
				to.SetFloat(x)
			}
		}
	case Switch:
		on, ok := data.(bool)
		if !ok {
			return fmt.Errorf("%v: say true or false", data)
		}
		if on {
			to.SetInt(int64(On))
		} else {
			to.SetInt(Off)
		}
	default: // an enumeration
		word, ok := data.(string)
		if !ok {
			return fmt.Errorf("%v is not a word", data)
		}
		err = to.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(word))
	}
	switch {
	case err != nil:
		return err
	case to.IsZero():
		return errors.New("0 says nothing: leave the key out")
	}
	if why := f.fault(to); why != "" {
		return errors.New(why)
	}
	return nil
}

func durationOf(data any, off bool) (time.Duration, error) {
	if off {
		return Off, nil
	}
	text, ok := data.(string)
	if !ok {
		return 0, fmt.Errorf(`%v has no unit: write a duration like "250ms"`, data)
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf(`%q is no duration like "250ms"`, text)
	case d < 0: // "-1ns" is not another name for Off
		return 0, fmt.Errorf("%q is negative", text)
	}
	return d, nil
}

func numberOf(data any, off, unlimited, whole bool) (float64, error) {
	switch {
	case off:
		return Off, nil
	case unlimited && data == "unlimited":
		return Unlimited, nil
	}
	var x float64
	switch n := data.(type) {
	case json.Number:
		f, err := n.Float64()
		if err != nil {
			return 0, fmt.Errorf("%v is out of range", n)
		}
		x = f
	case int:
		x = float64(n)
	case int64:
		x = float64(n)
	case uint64:
		x = float64(n)
	case float64:
		x = n
	default:
		return 0, fmt.Errorf("%v is not a number", data)
	}
	switch {
	case whole && x != math.Trunc(x):
		return 0, fmt.Errorf("%v is not a whole number", data)
	case x < 0: // -1 is not another name for Off
		return 0, fmt.Errorf("%v is negative", data)
	case whole && x > math.MaxInt32:
		return 0, fmt.Errorf("%v is over %d", data, math.MaxInt32)
	}
	return x, nil
}

// object is data as a map by string keys; nil is an empty one.
func object(data any) (m map[string]any, errs []error) {
	switch all := data.(type) {
	case nil:
		return nil, nil
	case twice:
		return nil, []error{errTwice}
	case map[string]any:
		return all, nil
	case map[any]any: // as yaml.v2 gives them, and yaml.v3 if not all keys are strings
		m = make(map[string]any, len(all))
		var others []string
		for k, v := range all {
			if text, ok := k.(string); ok {
				m[text] = v
			} else { // not what is written: 1.10 is 1.1
				others = append(others, fmt.Sprint(k))
			}
		}
		slices.Sort(others)
		for _, k := range others {
			errs = append(errs, fmt.Errorf("%s: a key is text: quote it", k))
		}
		return m, errs
	}
	return nil, []error{fmt.Errorf("%v: want keys and values", data)}
}

// twice is the value of a key that is given again.
type twice struct{}

var errTwice = errors.New("given twice")

func parseYAML(unmarshal func(any) error) (any, error) {
	var data any
	err := unmarshal(&data)
	return data, err
}

// parseJSON is json.Unmarshal into any, except that the value of a repeated key is
// twice: encoding/json lets the last one win and says nothing.
func parseJSON(data []byte) (any, error) {
	var whole json.RawMessage // one value, of bounded depth, or a syntax error
	if err := json.Unmarshal(data, &whole); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(whole))
	dec.UseNumber()
	return jsonValue(dec)
}

func jsonValue(dec *json.Decoder) (any, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		m := make(map[string]any)
		for dec.More() {
			k, err := dec.Token()
			if err != nil {
				return nil, err
			}
			key := k.(string)
			v, err := jsonValue(dec)
			if err != nil {
				return nil, err
			}
			if _, again := m[key]; again {
				v = twice{}
			}
			m[key] = v
		}
		_, err = dec.Token()
		return m, err
	case json.Delim('['):
		var list []any
		for dec.More() {
			v, err := jsonValue(dec)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = dec.Token()
		return list, err
	}
	return t, nil
}
