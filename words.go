package firebreak

import (
	"fmt"
	"slices"
)

// words are the words of an enumeration in text; "" has none.
type words []string

func (w words) of(i int) string {
	if i < 0 || i >= len(w) {
		return fmt.Sprintf("unknown(%d)", i)
	}
	return w[i]
}

func (w words) text(i int) ([]byte, error) {
	if i < 0 || i >= len(w) {
		return nil, fmt.Errorf("firebreak: no word for %d", i)
	}
	return []byte(w[i]), nil
}

func (w words) parse(text, what string) (int, error) {
	if i := slices.Index(w, text); i >= 0 && text != "" {
		return i, nil
	}
	return 0, fmt.Errorf("%q is no %s; there are %v", text, what, w[slices.IndexFunc(w, func(s string) bool { return s != "" }):])
}
