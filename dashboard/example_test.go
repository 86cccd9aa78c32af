package dashboard_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/dashboard"
)

// The page on a mux that only those reach who may see it.
func ExampleNew() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	reg.Command("users.get", firebreak.Config{})

	page := dashboard.New(reg, dashboard.Options{Title: "shop-front 7"})
	defer page.Close()
	admin := http.NewServeMux()
	admin.Handle("/firebreak/", page)
	server := &http.Server{Addr: "127.0.0.1:8081", Handler: admin}
	server.RegisterOnShutdown(page.Close) // or its Shutdown would wait for those who watch

	w := httptest.NewRecorder()
	admin.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/firebreak/", nil))
	fmt.Println(w.Code, w.Header().Get("Content-Type"))
	// Output: 200 text/html; charset=utf-8
}

// Operators are known by a header that a proxy sets, here; a session or a client's
// certificate serve as well.
func ExampleHandler_Operator() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	getUser := reg.Command("users.get", firebreak.Config{})

	page := dashboard.New(reg, dashboard.Options{
		Operator: "operator/",
		Audit: func(_ *http.Request, a dashboard.Action) {
			fmt.Printf("%q for %q by %q, error: %v\n", a.Reason, a.Command, a.Author, a.Err)
		},
	})
	defer page.Close()
	operators := map[string]bool{"ada": true}
	admin := http.NewServeMux()
	admin.Handle("/firebreak/", page)
	admin.Handle("/firebreak/operator/", page.Operator(func(r *http.Request) (string, error) {
		who := r.Header.Get("X-Authenticated-User")
		if !operators[who] {
			return "", errors.New("no operator")
		}
		return who, nil
	}))

	for _, who := range []string{"ada", "eve"} {
		r := httptest.NewRequest(http.MethodPost, "/firebreak/operator/override",
			strings.NewReader(`{"command":"users.get","mode":"shadow","reason":"a try","for":"1h"}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Authenticated-User", who)
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, r)
		fmt.Println(w.Code, getUser.Snapshot().Mode)
	}
	// Output:
	// "a try" for "users.get" by "ada", error: <nil>
	// 200 shadow
	// "" for "" by "", error: no operator
	// 403 shadow
}
