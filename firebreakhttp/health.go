package firebreakhttp

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/firebreak-go/firebreak"
)

// Health tells how the dependencies are, in JSON and always with 200 OK: a sick
// dependency is no reason to restart the service that it is kept from. The commands
// listed are those that are not as usual: their circuit is not closed, or somebody has
// set a mode or an override. Hosts and errors are named; do not show it to the world.
// Moments are in UTC.
//
//	{"status":"degraded","commands":[{"command":"stock","dependency":"stock","state":"open","mode":"auto","evidence":{…}}]}
//
// The status is ok, degraded (a circuit is not closed) or draining
// ([firebreak.Registry.Shutdown] was called; no command is listed then).
func Health(reg *firebreak.Registry) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := healthOf(reg)
		h.write(w, http.StatusOK)
	})
}

// Ready tells whether to send requests here: 200 OK, or 503 Service Unavailable while
// the registry is draining, or while a required command's circuit is open and its sleep
// window not over. After that it is ready again, as it takes a request to find out.
// Require only what no request can do without and what is sick for this instance alone:
// what is down for all takes all of them out. A command of a [firebreak.Keyed] may make
// way for another key and is closed from then on; require none. The JSON is that of
// [Health], with the status unready and the required commands that are why.
func Ready(reg *firebreak.Registry, required ...*firebreak.Command) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := health{Status: statusOK}
		if reg.Draining() {
			h.Status = statusDraining
		} else {
			for _, cmd := range required {
				if s := cmd.Snapshot(); refuses(&s) {
					h.Status = statusUnready
					h.Commands = append(h.Commands, commandOf(cmd, &s))
				}
			}
		}
		code := http.StatusOK
		if h.Status != statusOK {
			code = http.StatusServiceUnavailable
		}
		h.write(w, code)
	})
}

// refuses tells whether the circuit keeps calls away. It stays open till one finds the
// sleep window over, so its state alone would keep them away for ever.
func refuses(s *firebreak.Snapshot) bool {
	if s.State != firebreak.StateOpen || s.Mode == firebreak.Shadow {
		return false
	}
	return s.Mode == firebreak.ForceOpen || s.Time.Before(s.Evidence.NextProbe)
}

const (
	statusOK       = "ok"
	statusDegraded = "degraded"
	statusDraining = "draining"
	statusUnready  = "unready"
)

type health struct {
	Status   string    `json:"status"`
	Commands []command `json:"commands,omitempty"`
}

type command struct {
	Command    string    `json:"command"` // with its key
	Dependency string    `json:"dependency"`
	State      string    `json:"state"`
	Mode       string    `json:"mode"`
	Override   *override `json:"override,omitempty"`
	Evidence   *evidence `json:"evidence,omitempty"` // of a circuit that opened by itself and is not closed
}

type override struct {
	Reason string    `json:"reason,omitempty"`
	Author string    `json:"author,omitempty"`
	Until  time.Time `json:"until,omitzero"`
}

type evidence struct {
	Rule      string    `json:"rule"`
	LastError string    `json:"lastError,omitempty"`
	At        time.Time `json:"at"`
	NextProbe time.Time `json:"nextProbe,omitzero"`
	Calls     uint64    `json:"calls"`
	Failures  uint64    `json:"failures"`
	Slow      uint64    `json:"slow"`
	Refused   uint64    `json:"refused"`
}

func healthOf(reg *firebreak.Registry) health {
	h := health{Status: statusOK}
	if reg.Draining() {
		h.Status = statusDraining
		return h
	}
	for cmd := range reg.Commands() {
		s := cmd.Snapshot()
		closed := s.State == firebreak.StateClosed
		if !closed {
			h.Status = statusDegraded
		}
		if !closed || s.Mode != firebreak.Auto || overridden(&s) {
			h.Commands = append(h.Commands, commandOf(cmd, &s))
		}
	}
	return h
}

func overridden(s *firebreak.Snapshot) bool {
	o := &s.Override
	return o.Mode != 0 || o.Inject != nil || o.Reason != "" || o.Author != "" || !o.Until.IsZero()
}

func commandOf(cmd *firebreak.Command, s *firebreak.Snapshot) command {
	c := command{Command: cmd.Name(), Dependency: s.Dependency, State: s.State.String(), Mode: s.Mode.String()}
	if o := &s.Override; overridden(s) {
		c.Override = &override{Reason: o.Reason, Author: o.Author, Until: moment(o.Until)}
	}
	if e := &s.Evidence; s.State != firebreak.StateClosed && s.Mode != firebreak.ForceOpen && e.Rule != "" {
		c.Evidence = &evidence{e.Rule, e.LastError, moment(e.At), moment(e.NextProbe), e.Calls, e.Failures, e.Slow, e.Refused}
	}
	return c
}

// moment is t for a fleet that logs in UTC. JSON has no year of five digits: an
// override until then has no end.
func moment(t time.Time) time.Time {
	if t = t.UTC(); t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

func (h *health) write(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(h) //nolint:errcheck,errchkjson // whoever asked has gone
}
