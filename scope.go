package firebreak

import (
	"context"
	"sync"
)

// WithScope begins a request, or whatever else is one piece of work: a cache for
// [Cached], batches of its own for [Collapse], and a log for [RequestLog]. What it
// holds is garbage with the context. A scope within a scope starts empty: so one
// reads what one wrote.
func WithScope(ctx context.Context) context.Context {
	return context.WithValue(ctx, scopeKey{}, &scope{})
}

type scopeKey struct{}

// A scope is what calls of one request share.
type scope struct {
	mu     sync.Mutex
	caches map[any]any // by *cache[K, V], of map[K]*sharing[V]
	log    requestLog
}

// scopeOf returns ctx's scope, or nil.
func scopeOf(ctx context.Context) *scope {
	s, _ := ctx.Value(scopeKey{}).(*scope)
	return s
}
