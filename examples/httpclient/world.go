package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"sync/atomic"
)

// How an API is doing.
type condition int32

const (
	well       condition = iota
	hanging              // requests are taken, and no answer ever comes
	failing              // every answer is 500, at once
	overloaded           // every answer is 503, and says when to come back
)

// An api is a service of somebody else's, which knows nothing of firebreak.
type api struct {
	condition atomic.Int32
	answer    func(query url.Values) any // nil if there is no such thing
}

func (a *api) be(c condition) { a.condition.Store(int32(c)) }

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch condition(a.condition.Load()) {
	case hanging:
		<-r.Context().Done() // until whoever asked has hung up
		return
	case failing:
		http.Error(w, "too many connections to the database", http.StatusInternalServerError)
		return
	case overloaded:
		w.Header().Set("Retry-After", "1") // seconds
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	v := a.answer(r.URL.Query())
	if v == nil {
		http.NotFound(w, r)
		return
	}
	writeJSON(w, v)
}

// newPricesAPI knows what things cost today: GET /price?item=tea.
func newPricesAPI() *api {
	today := map[string]int{"tea": 410, "coffee": 620}
	return &api{answer: func(query url.Values) any {
		item := query.Get("item")
		if cents, ok := today[item]; ok {
			return map[string]any{"item": item, "cents": cents}
		}
		return nil
	}}
}

// newRatesAPI knows what a dollar is worth: GET /rate?currency=EUR.
func newRatesAPI() *api {
	now := map[string]float64{"EUR": 0.9, "GBP": 0.8}
	return &api{answer: func(query url.Values) any {
		currency := query.Get("currency")
		if rate, ok := now[currency]; ok {
			return map[string]any{"currency": currency, "rate": rate}
		}
		return nil
	}}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // an error here is a client that has left
}
