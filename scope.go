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
	caches []scopeCache // few, so that looking for one takes less than a map would
	log    requestLog
}

// A scopeCache is what one [Cached] has in a scope.
type scopeCache struct {
	of     any // a *cache[K, V]
	values any // its map[K]*sharing[V]
}

// scopeOf returns ctx's scope, or nil.
func scopeOf(ctx context.Context) *scope {
	s, _ := ctx.Value(scopeKey{}).(*scope)
	return s
}
