package firebreakhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"time"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/firebreakhttp"
)

// rates is a server that is out of order.
func rates() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "come back later", http.StatusServiceUnavailable)
	}))
}

// Any client is guarded by its Transport. A failure of the server is delivered as ever,
// until the circuit opens.
func ExampleTransport() {
	server := rates()
	defer server.Close()
	reg := firebreak.NewRegistry(firebreak.Config{Timeout: 10 * time.Second})
	cmd := reg.Command("rates", firebreak.Config{ConsecutiveFailures: 2})
	client := &http.Client{Transport: &firebreakhttp.Transport{Command: cmd}}

	for range 3 {
		resp, err := client.Get(server.URL)
		if err != nil {
			fmt.Println("open:", errors.Is(err, firebreak.ErrOpen))
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Printf("%s: %s", resp.Status, body)
	}
	// Output:
	// 503 Service Unavailable: come back later
	// 503 Service Unavailable: come back later
	// open: true
}

// A crawler, a proxy, a sender of webhooks: hosts are many, and one that is down does
// not keep the others from being called.
func ExampleTransport_perHost() {
	down := rates()
	defer down.Close()
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	reg := firebreak.NewRegistry(firebreak.Config{Timeout: 10 * time.Second})
	hosts := reg.Dependency("webhooks", firebreak.Config{}).Keyed("webhooks.send", 1000, firebreak.Config{ConsecutiveFailures: 1})
	client := &http.Client{Transport: &firebreakhttp.Transport{Keyed: hosts, HoldPermit: true}}

	for _, target := range []string{down.URL, down.URL, up.URL} {
		resp, err := client.Post(target, "application/json", nil)
		if err != nil {
			fmt.Println("open:", errors.Is(err, firebreak.ErrOpen))
			continue
		}
		resp.Body.Close()
		fmt.Println(resp.StatusCode)
	}
	// Output:
	// 503
	// open: true
	// 200
}

// A fallback answers in place of a server.
func ExampleTransport_fallback() {
	server := rates()
	defer server.Close()
	cmd := firebreak.NewRegistry(firebreak.Config{Timeout: 10 * time.Second}).Command("rates", firebreak.Config{})
	client := &http.Client{Transport: &firebreakhttp.Transport{
		Command: cmd,
		Fallback: func(req *http.Request, cause error) (*http.Response, error) {
			fmt.Println("asked because of", cause)
			return firebreakhttp.NewResponse(req, http.StatusOK, "text/plain", []byte("yesterday's rates")), nil
		},
	}}
	resp, err := client.Get(server.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, string(body))
	// Output:
	// asked because of 503 Service Unavailable
	// 200 yesterday's rates
}

// The whole of an answer is the call: its status, its body, and what it means.
func ExampleCheck() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/EUR" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, "1.08") //nolint:errcheck // the client sees it
	}))
	defer server.Close()
	cmd := firebreak.NewRegistry(firebreak.Config{Timeout: 10 * time.Second}).Command("rates", firebreak.Config{})

	get := func(ctx context.Context, currency string) (float64, error) {
		return firebreak.Do(ctx, cmd, func(ctx context.Context) (rate float64, err error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/"+url.PathEscape(currency), nil)
			if err != nil {
				return 0, err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return 0, err
			}
			defer resp.Body.Close()
			if err := firebreakhttp.Check(resp); err != nil {
				return 0, err
			}
			err = json.NewDecoder(resp.Body).Decode(&rate)
			return rate, err
		})
	}
	fmt.Println(get(context.Background(), "EUR"))
	fmt.Println(get(context.Background(), "XXX"))
	c := cmd.Snapshot().Total
	fmt.Println(c.Success, "success,", c.Expected, "expected,", c.Failure, "failures")
	// Output:
	// 1.08 <nil>
	// 0 404 Not Found
	// 1 success, 1 expected, 0 failures
}

// What a call came to is the answer to whoever asked.
func ExampleError() {
	cmd := firebreak.NewRegistry(firebreak.Config{}).Command("stock", firebreak.Config{Mode: firebreak.ForceOpen})
	handler := func(w http.ResponseWriter, r *http.Request) {
		err := cmd.Run(r.Context(), func(context.Context) error { return nil })
		if firebreakhttp.Error(w, err) {
			return
		}
		if err != nil { // an error of the dependency's own
			http.Error(w, "stock: no answer", http.StatusBadGateway)
			return
		}
		fmt.Fprintln(w, "in stock")
	}
	w := httptest.NewRecorder()
	handler(w, httptest.NewRequest(http.MethodGet, "/", nil))
	fmt.Print(w.Code, " ", w.Body)
	fmt.Println("Retry-After:", w.Header().Get("Retry-After"))
	// Output:
	// 503 Service Unavailable
	// Retry-After: 1
}

// A service that is of no use without its database, and of some without the rest.
func ExampleReady() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	db := reg.Command("db", firebreak.Config{})
	stock := reg.Command("stock", firebreak.Config{})
	mux := http.NewServeMux()
	mux.Handle("GET /livez", firebreakhttp.Health(reg))
	mux.Handle("GET /readyz", firebreakhttp.Ready(reg, db))

	ask := func(path string) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Print(path, " ", w.Code, " ", w.Body)
	}
	stock.Override(firebreak.Override{Mode: firebreak.ForceOpen})
	ask("/readyz")
	db.Override(firebreak.Override{Mode: firebreak.ForceOpen, Reason: "failover", Author: "dba"})
	ask("/readyz")
	_ = reg.Shutdown(context.Background())
	ask("/readyz")
	ask("/livez")
	// Output:
	// /readyz 200 {"status":"ok"}
	// /readyz 503 {"status":"unready","commands":[{"command":"db","dependency":"db","state":"open","mode":"force_open","override":{"reason":"failover","author":"dba"}}]}
	// /readyz 503 {"status":"draining"}
	// /livez 200 {"status":"draining"}
}

// A server that works no longer than its caller waits, nor do the calls that it makes.
func ExampleHandler() {
	server := httptest.NewServer(&firebreakhttp.Handler{
		DeadlineHeader: firebreakhttp.DeadlineHeader,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, ok := r.Context().Deadline()
			fmt.Fprint(w, "a deadline: ", ok)
		}),
	})
	defer server.Close()
	cmd := firebreak.NewRegistry(firebreak.Config{}).Command("server", firebreak.Config{})
	client := &http.Client{
		Timeout:   10 * time.Second,
		Transport: &firebreakhttp.Transport{Command: cmd, DeadlineHeader: firebreakhttp.DeadlineHeader},
	}
	resp, err := client.Get(server.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(string(body))
	// Output: a deadline: true
}
