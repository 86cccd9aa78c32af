package hystrixstream_test

import (
	"bufio"
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
	"github.com/firebreak-go/firebreak/hystrixstream"
)

// manyCommands is a registry of 200 commands of 20 dependencies, half of them pools,
// after a thousand calls each.
func manyCommands(b *testing.B) *firebreak.Registry {
	b.Helper()
	reg := newRegistry(b, firebreak.Config{})
	for i := range 20 {
		d := reg.Dependency(fmt.Sprintf("dependency-%02d", i), firebreak.Config{Isolation: firebreak.Isolation(1 + i%2)})
		for j := range 10 {
			cmd := d.Command(fmt.Sprintf("dependency-%02d.operation-%d", i, j), firebreak.Config{})
			for range 1000 {
				cmd.Run(b.Context(), succeed)
			}
		}
	}
	return reg
}

// What a sample costs to make, which is once for all clients.
func BenchmarkEncode200(b *testing.B) {
	reg, encode := manyCommands(b), hystrixstream.Encoder()
	b.ReportAllocs()
	for b.Loop() {
		encode(reg)
	}
	b.SetBytes(int64(len(encode(reg))))
}

// Of that, what reading the registry costs.
func BenchmarkRead200(b *testing.B) {
	reg := manyCommands(b)
	b.ReportAllocs()
	for b.Loop() {
		for cmd := range reg.Commands() {
			cmd.Snapshot()
			cmd.Config()
		}
	}
}

// A sample of 200 commands for five clients over sockets: made, written, and read by
// the clients in the same process.
func Benchmark200Commands5Clients(b *testing.B) {
	const clients = 5
	h := newHandler(b, manyCommands(b), hystrixstream.Options{})
	stepped, step := hystrixstream.Stepped(h)
	server := httptest.NewServer(stepped)
	b.Cleanup(func() {
		h.Close()
		server.Close()
	})
	steps := make([]chan struct{}, clients)
	read := make(chan error, clients)
	for i := range steps {
		resp, err := server.Client().Get(server.URL)
		require.NoError(b, err)
		b.Cleanup(func() { _ = resp.Body.Close() })
		steps[i] = make(chan struct{})
		b.Cleanup(func() { close(steps[i]) })
		body := bufio.NewReaderSize(resp.Body, 1<<16)
		go func() {
			for range steps[i] {
				read <- skipSample(body)
			}
		}()
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, s := range steps {
			s <- struct{}{}
		}
		step()
		for range steps {
			if err := <-read; err != nil {
				b.Fatal(err)
			}
		}
	}
}

// skipSample reads to the end of a sample.
func skipSample(body *bufio.Reader) error {
	for {
		line, err := body.ReadSlice('\n')
		if err != nil || string(line) == "ping: \n" {
			return err
		}
	}
}
