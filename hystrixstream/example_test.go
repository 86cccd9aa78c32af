package hystrixstream_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/hystrixstream"
)

// The three streams on a port of the operators'. What a dashboard reads of them is a
// line of JSON for each command.
func Example() {
	reg := firebreak.NewRegistry(firebreak.Config{})
	getUser := reg.Command("users.get", firebreak.Config{})
	_ = getUser.Run(context.Background(), func(context.Context) error { return nil })

	streams := hystrixstream.New(reg, hystrixstream.Options{})
	mux := http.NewServeMux()
	mux.Handle("/hystrix.stream", streams)
	mux.Handle("/hystrix/config.stream", streams.Config())
	mux.Handle("/hystrix/utilization.stream", streams.Utilization())
	server := httptest.NewServer(mux) // in a service, a http.Server
	server.Config.RegisterOnShutdown(streams.Close)
	defer server.Close()
	defer streams.Close()

	resp, err := http.Get(server.URL + "/hystrix.stream?delay=1000")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var command struct {
			Type, Name string
			Open       bool `json:"isCircuitBreakerOpen"`
			Success    int  `json:"rollingCountSuccess"`
		}
		if err := json.Unmarshal([]byte(data), &command); err != nil {
			fmt.Println(err)
		}
		fmt.Printf("%+v\n", command)
		break
	}
	// Output: {Type:HystrixCommand Name:users.get Open:false Success:1}
}
