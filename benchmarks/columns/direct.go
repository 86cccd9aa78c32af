package columns

import (
	"context"
	"net/http"
)

// direct has no library: a plain call, and for Pool the least with which a caller can
// leave, a goroutine, a channel and a timer.
var direct = Column{
	Name: "direct",
	New: func(s Spec) *Guard {
		if s.Mode == Pool {
			return &Guard{
				Call: orElse(s, func(ctx context.Context) (int, error) { return elsewhere(ctx, s.Timeout, s.Run, func() {}) }),
				Does: Does{Timeout: "leaves", Fallback: "by hand", Runs: "1 goroutine"},
			}
		}
		does := Does{Runs: "caller"}
		if s.Mode == Everything {
			does.Fallback = "by hand"
		}
		return &Guard{Call: orElse(s, func(ctx context.Context) (int, error) { return s.Run(ctx) }), Does: does}
	},
	HTTP: func(base http.RoundTripper, _ Spec) (http.RoundTripper, func()) { return base, func() {} },
}
