package itest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak"
)

// A habit is how a dependency behaves towards one command.
type habit struct {
	rate    float64       // calls a second
	latency time.Duration // of most calls
	fails   float64       // the share that do
	err     error
	absent  float64       // the share that is not found
	hangs   float64       // the share that does not answer
	after   time.Duration // when it begins to fail and to hang
}

// sceneTime is how long the load runs before a picture is taken.
func sceneTime() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("FIREBREAK_SCENE")); err == nil {
		return d
	}
	return 4 * time.Second
}

var errNotFound = errors.New("not found")

// A load makes calls until the end of the test.
type load struct {
	began time.Time
	ctx   context.Context
	stop  context.CancelFunc
	work  sync.WaitGroup
}

func newLoad(t *testing.T) *load {
	t.Helper()
	l := &load{began: time.Now()}
	l.ctx, l.stop = context.WithCancel(context.Background())
	t.Cleanup(l.end)
	return l
}

func (l *load) end() {
	l.stop()
	l.work.Wait()
}

// drive calls cmd as h says, with a fallback.
func (l *load) drive(cmd *firebreak.Command, h habit) {
	l.work.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		due := rand.Float64()
		for {
			select {
			case <-l.ctx.Done():
				return
			case <-tick.C:
			}
			for due += h.rate * 0.02 * (0.7 + 0.6*rand.Float64()); due >= 1; due-- {
				l.work.Go(func() {
					_ = cmd.Run(l.ctx, func(ctx context.Context) error { return h.run(ctx, l) },
						func(context.Context, error) error { return nil })
				})
			}
		}
	})
}

func (h habit) run(ctx context.Context, l *load) error {
	wait := time.Duration(float64(h.latency) * (0.6 + rand.ExpFloat64()*0.5))
	dice := rand.Float64()
	if time.Since(l.began) < h.after {
		dice += h.hangs + h.fails
	}
	var err error
	switch {
	case dice < h.hangs:
		wait = time.Hour
	case dice < h.hangs+h.fails:
		err = h.err
	case dice < h.hangs+h.fails+h.absent:
		err = errNotFound
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newRegistry makes a registry that is shut down with the test.
func newRegistry(t *testing.T, c firebreak.Config) *firebreak.Registry {
	t.Helper()
	reg := firebreak.NewRegistry(c)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, reg.Shutdown(ctx))
	})
	return reg
}

// shop is a registry as a shop has it on a bad day, under load.
func shop(t *testing.T) *firebreak.Registry {
	t.Helper()
	reg := newRegistry(t, firebreak.Config{Timeout: 300 * time.Millisecond, Classify: firebreak.ExpectErrors(errNotFound)})
	l := newLoad(t)
	ms := time.Millisecond
	down := errors.New("dial tcp 10.4.2.17:8443: connect: connection refused")
	for _, d := range []struct {
		name     string
		config   firebreak.Config
		commands map[string]habit
	}{
		{"users", firebreak.Config{MaxConcurrent: 40}, map[string]habit{
			"users.get":    {rate: 180, latency: 8 * ms, absent: 0.04},
			"users.search": {rate: 22, latency: 45 * ms, fails: 0.01, err: down},
			"users.update": {rate: 9, latency: 22 * ms},
		}},
		{"inventory", firebreak.Config{MaxConcurrent: 12, Isolation: firebreak.PoolIsolation, QueueSize: 8}, map[string]habit{
			"inventory.stock":   {rate: 60, latency: 20 * ms, hangs: 0.7, after: sceneTime() - 14*time.Second},
			"inventory.reserve": {rate: 14, latency: 30 * ms, hangs: 0.12, after: sceneTime() - 14*time.Second},
		}},
		{"pricing", firebreak.Config{MaxConcurrent: 60}, map[string]habit{
			"pricing.quote":  {rate: 260, latency: 4 * ms, absent: 0.01},
			"pricing.rebate": {rate: 40, latency: 6 * ms},
		}},
		{"payments", firebreak.Config{MaxConcurrent: 6}, map[string]habit{
			"payments.charge": {rate: 70, latency: 90 * ms},
			"payments.refund": {rate: 3, latency: 120 * ms},
		}},
		{"reviews", firebreak.Config{}, map[string]habit{
			"reviews.list": {rate: 75, latency: 14 * ms, fails: 0.17, err: errors.New("reviews: 502 Bad Gateway")},
			"reviews.post": {rate: 2, latency: 40 * ms},
		}},
		{"search", firebreak.Config{MaxConcurrent: 30}, map[string]habit{
			"search.query":   {rate: 95, latency: 28 * ms, hangs: 0.01},
			"search.suggest": {rate: 140, latency: 7 * ms},
			"search.reindex": {rate: 0.5, latency: 150 * ms},
		}},
	} {
		dependency := reg.Dependency(d.name, d.config)
		for name, h := range d.commands {
			c := firebreak.Config{}
			if name == "inventory.stock" { // so that the picture has the first evidence
				c.SleepWindow = 20 * time.Second
			}
			l.drive(dependency.Command(name, c), h)
		}
	}
	l.drive(reg.Command("mail", firebreak.Config{Mode: firebreak.Shadow}), habit{rate: 25, latency: 60 * ms, fails: 0.7, err: errors.New("smtp: 421 service not available")})
	l.drive(reg.Command("geo", firebreak.Config{}), habit{rate: 50, latency: 2 * ms})
	flags := reg.Command("flags", firebreak.Config{})
	l.drive(flags, habit{rate: 33, latency: ms})
	audit := reg.Command("audit-log", firebreak.Config{})
	l.drive(audit, habit{rate: 30, latency: 5 * ms})
	audit.Override(firebreak.Override{
		Mode: firebreak.ForceOpen, Author: "ada", Reason: "disk is full, INC-1182", Until: time.Now().Add(25 * time.Minute),
	})
	images := reg.Dependency("images", firebreak.Config{MaxConcurrent: 50}).Keyed("images.get", 16, firebreak.Config{})
	for i, host := range []string{"cdn-a.example", "cdn-b.example", "cdn-c.example", "cdn-d.example"} {
		h := habit{rate: 20 - 4*float64(i), latency: time.Duration(20+i*9) * ms}
		if i == 2 {
			h.fails, h.err = 0.9, fmt.Errorf("GET https://%s/: 503 Service Unavailable", host)
		}
		l.drive(images.Command(host), h)
	}
	require.NoError(t, reg.Update(firebreak.Document{
		Commands:     map[string]firebreak.Config{"search.query": {Timeout: 250 * ms}},
		Dependencies: map[string]firebreak.Config{"pricing": {MaxConcurrent: 80}},
	}))
	return reg
}
