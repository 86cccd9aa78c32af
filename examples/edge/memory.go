package main

import (
	"context"
	"sync"
	"time"
)

const (
	maxRemembered = 10_000
	maxAge        = 10 * time.Minute
)

// A memory is a local cache for fallbacks: the last good answers, by key. It differs
// from [firebreak.Stale], which has one for all. Its functions may be used concurrently.
type memory[K comparable, V any] struct {
	mu     sync.Mutex
	values map[K]remembered[V]
}

type remembered[V any] struct {
	v  V
	at time.Time
}

func newMemory[K comparable, V any]() *memory[K, V] {
	return &memory[K, V]{values: map[K]remembered[V]{}}
}

// remember returns fn, made to keep its good answers. The values are shared: do not
// change one.
func (m *memory[K, V]) remember(fn func(context.Context, K) (V, error)) func(context.Context, K) (V, error) {
	return func(ctx context.Context, key K) (V, error) {
		v, err := fn(ctx, key)
		if err == nil {
			m.put(key, v)
		}
		return v, err
	}
}

func (m *memory[K, V]) put(key K, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.values[key]; !known && len(m.values) >= maxRemembered {
		for old := range m.values { // any: what matters is the bound
			delete(m.values, old)
			break
		}
	}
	m.values[key] = remembered[V]{v, time.Now()}
}

// recall is a fallback that notes why, if it has an answer.
func (m *memory[K, V]) recall(why string) func(context.Context, K, error) (V, error) {
	return func(ctx context.Context, key K, cause error) (V, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		r, ok := m.values[key]
		if !ok || time.Since(r.at) > maxAge {
			var none V
			return none, cause
		}
		note(ctx, why)
		return r.v, nil
	}
}
