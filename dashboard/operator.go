package dashboard

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/firebreak-go/firebreak"
)

// Bounds on what operators send.
const (
	maxRequest  = 1 << 20 // bytes
	maxReason   = 500     // bytes
	minOverride = time.Second
	maxOverride = 30 * 24 * time.Hour
)

// An Action is what an operator did, or was not let do. Requests that change nothing
// are told of only if they were refused.
type Action struct {
	At     time.Time
	Author string // as authorize said; "" if it refused, or was not asked
	Reason string // the operator's

	Command  string             // whose override; with its key. "" for a document
	Override firebreak.Override // zero: it was lifted

	Before, After *firebreak.Document // the document in force, and the new one; nil for an override

	Err error // why it was not done; nil if it was
}

var (
	errNobody   = errors.New("dashboard: authorize named no author")
	errReason   = errors.New("a reason is needed")
	errDraining = errors.New("the registry is shut down")
	errStale    = errors.New("the document has changed meanwhile: look at it again")
)

// Operator returns a handler with which the page can set and lift overrides, and read,
// try and replace the document in force. Mount it apart from the page, under a path
// that ends in a slash, and tell the page where by [Options.Operator]:
//
//	page := dashboard.New(reg, dashboard.Options{Operator: "operator/"})
//	admin.Handle("/firebreak/", page)
//	admin.Handle("/firebreak/operator/", page.Operator(whoIs))
//
// authorize is asked for every request, and returns who is asking: a name for the
// records. On an error or an empty name the answer is 403 Forbidden, without the
// error's text, and nothing was read or done. It may be called concurrently. Requests
// that a browser sends for another origin are refused before that, as
// [http.CrossOriginProtection] does; what is not a browser it lets pass, so authorize
// is the lock, and not the page that shows the buttons. Let it go by more than the
// address that a request comes from: another site can reach a local address under a
// name of its own.
//
// An override needs a reason and says how long it holds, from a second to thirty days
// or "unlimited". A document needs a reason and the sum of the one that it is to
// replace, so that of two who edit at once the second sees the first's work; code
// that calls [firebreak.Registry.Update] itself at that moment may still be
// overwritten. All that was done is in the page's events, with its author, and told to
// [Options.Audit]. It panics if authorize is nil.
func (h *Handler) Operator(authorize func(*http.Request) (author string, err error)) http.Handler {
	if authorize == nil {
		panic("dashboard: Operator: authorize is needed")
	}
	return &operator{page: h, authorize: authorize, origin: http.NewCrossOriginProtection()}
}

type operator struct {
	page      *Handler
	authorize func(*http.Request) (string, error)
	origin    *http.CrossOriginProtection
}

// ServeHTTP serves what the last element of the path names.
func (o *operator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	serve := map[string]func(*operator, http.ResponseWriter, *http.Request, string){
		"GET session":   (*operator).session,
		"GET document":  (*operator).document,
		"POST preview":  (*operator).preview,
		"POST document": (*operator).update,
		"POST override": (*operator).override,
	}[r.Method+" "+lastElement(r.URL.Path)]
	if serve == nil {
		http.NotFound(w, r)
		return
	}
	if err := o.origin.Check(r); err != nil {
		o.refuse(w, r, err)
		return
	}
	author, err := o.authorize(r)
	if err == nil && strings.TrimSpace(author) == "" {
		err = errNobody
	}
	if err != nil {
		o.refuse(w, r, err)
		return
	}
	if r.Method == http.MethodPost {
		// A form of another site cannot send this without being asked first.
		if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); strings.TrimSpace(kind) != "application/json" {
			fault(w, http.StatusUnsupportedMediaType, errors.New("want application/json"))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
	}
	serve(o, w, r, author)
}

func (o *operator) refuse(w http.ResponseWriter, r *http.Request, err error) {
	o.audit(r, Action{Err: err})
	fault(w, http.StatusForbidden, errors.New("not authorised"))
}

func (o *operator) audit(r *http.Request, a Action) {
	if a.At.IsZero() {
		a.At = time.Now()
	}
	if o.page.options.Audit != nil {
		o.page.options.Audit(r, a)
	}
}

// fault answers with an error, a line for each thing that is wrong.
func fault(w http.ResponseWriter, code int, err error) {
	answer(w, code, map[string][]string{"faults": strings.Split(err.Error(), "\n")})
}

// read reads a request's body, an object with no keys but into's.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			return true
		}
		err = errors.New("one object is wanted")
	}
	code := http.StatusBadRequest
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		code = http.StatusRequestEntityTooLarge
	}
	fault(w, code, err)
	return false
}

// session tells who is asking.
func (o *operator) session(w http.ResponseWriter, _ *http.Request, author string) {
	answer(w, http.StatusOK, map[string]string{"author": author})
}

// document answers with the document in force.
func (o *operator) document(w http.ResponseWriter, _ *http.Request, _ string) {
	doc := o.page.registry.Document()
	answer(w, http.StatusOK, struct {
		Document  firebreak.Document `json:"document"`
		Base      string             `json:"base"`
		Unclaimed []string           `json:"unclaimed"`
	}{doc, sumOf(&doc), append([]string{}, o.page.registry.Unclaimed()...)})
}

// sumOf tells documents apart.
func sumOf(doc *firebreak.Document) string {
	sum := sha256.Sum256(encode(doc))
	return hex.EncodeToString(sum[:])
}

// parse reads a document. An empty object is one; nothing is none.
func parse(text json.RawMessage) (doc firebreak.Document, err error) {
	if len(text) == 0 || string(text) == "null" {
		return doc, errors.New("a document is needed")
	}
	return doc, json.Unmarshal(text, &doc)
}

// preview tells what a document would change.
func (o *operator) preview(w http.ResponseWriter, r *http.Request, _ string) {
	var asked struct {
		Document json.RawMessage `json:"document"`
	}
	if !read(w, r, &asked) {
		return
	}
	doc, err := parse(asked.Document)
	if err != nil {
		fault(w, http.StatusUnprocessableEntity, err)
		return
	}
	p, err := previewOf(o.page.registry, &doc)
	if err != nil {
		fault(w, http.StatusUnprocessableEntity, err)
		return
	}
	answer(w, http.StatusOK, p)
}

// update puts a document in force.
func (o *operator) update(w http.ResponseWriter, r *http.Request, author string) {
	var asked struct {
		Document json.RawMessage `json:"document"`
		Base     string          `json:"base"`
		Reason   string          `json:"reason"`
	}
	if !read(w, r, &asked) {
		return
	}
	a := Action{At: time.Now(), Author: author, Reason: asked.Reason}
	code, err := o.replace(&a, asked.Document, asked.Base)
	if err == nil {
		o.page.events.act("document", &a, nil)
	}
	o.done(w, r, &a, code, err)
}

func (o *operator) replace(a *Action, text json.RawMessage, base string) (int, error) {
	doc, err := parse(text)
	if err != nil {
		return http.StatusUnprocessableEntity, err
	}
	a.After = &doc
	if err := checkReason(a.Reason); err != nil {
		return http.StatusUnprocessableEntity, err
	}
	reg := o.page.registry
	o.page.editing.Lock()
	defer o.page.editing.Unlock()
	before := reg.Document()
	a.Before = &before
	if base != sumOf(&before) {
		return http.StatusConflict, errStale
	}
	if err := reg.Update(doc); err != nil {
		return http.StatusUnprocessableEntity, err
	}
	return http.StatusOK, nil
}

// override sets or lifts one.
func (o *operator) override(w http.ResponseWriter, r *http.Request, author string) {
	var asked struct {
		Command string `json:"command"`
		Key     string `json:"key"`
		Mode    string `json:"mode"` // or lift
		Reason  string `json:"reason"`
		For     string `json:"for"` // or unlimited
	}
	if !read(w, r, &asked) {
		return
	}
	a := Action{At: time.Now(), Author: author, Reason: asked.Reason, Command: asked.Command}
	lift := asked.Mode == "lift"
	cmd := find(o.page.registry, asked.Command, asked.Key)
	if cmd == nil {
		o.done(w, r, &a, http.StatusNotFound, errors.New("there is no such command"))
		return
	}
	a.Command = cmd.Name()
	err := checkReason(asked.Reason)
	if err == nil && !lift {
		a.Override, err = overrideAsked(&a, asked.Mode, asked.For)
	}
	if err != nil {
		o.done(w, r, &a, http.StatusUnprocessableEntity, err)
		return
	}
	if o.page.registry.Draining() {
		o.done(w, r, &a, http.StatusConflict, errDraining)
		return
	}
	cmd.Override(a.Override)
	if lift {
		o.page.events.act("lift", &a, cmd)
	}
	o.done(w, r, &a, http.StatusOK, nil)
}

func checkReason(reason string) error {
	switch {
	case strings.TrimSpace(reason) == "":
		return errReason
	case len(reason) > maxReason:
		return fmt.Errorf("the reason has more than %d bytes", maxReason)
	}
	return nil
}

func overrideAsked(a *Action, mode, length string) (o firebreak.Override, err error) {
	if err := o.Mode.UnmarshalText([]byte(mode)); err != nil {
		return o, err
	}
	o.Reason, o.Author = a.Reason, a.Author
	if length == "unlimited" {
		return o, nil
	}
	d, err := time.ParseDuration(length)
	if err != nil || d < minOverride || d > maxOverride {
		return o, fmt.Errorf("for: %q is neither unlimited nor from %v to %v", length, minOverride, maxOverride)
	}
	o.Until = a.At.Add(d)
	return o, nil
}

// done tells of an action and answers.
func (o *operator) done(w http.ResponseWriter, r *http.Request, a *Action, code int, err error) {
	a.Err = err
	o.audit(r, *a)
	if err != nil {
		fault(w, code, err)
		return
	}
	answer(w, code, struct{}{})
}
