package itest

import (
	"bytes"
	"context"
	"fmt"
	"image/color"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A tab is a page in a browser of its own.
type tab struct {
	t    *testing.T
	ctx  context.Context
	base string // the server's address

	mu      sync.Mutex
	faults  []string // what the browser complained of
	outside []string // requests to anywhere else
}

type look struct {
	width, height int64
	dark          bool
	phone         bool
}

var desk = look{width: 1440, height: 900}

// open starts a browser, and opens an address under base in it.
func open(t *testing.T, base, address string, l look) *tab {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("chromium is not installed")
		}
		t.Skip("chromium is not installed")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:len(chromedp.DefaultExecAllocatorOptions):len(chromedp.DefaultExecAllocatorOptions)],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("hide-scrollbars", true))
	limit, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	allocator, stop := chromedp.NewExecAllocator(limit, options...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		require.NoError(t, chromedp.Cancel(ctx))
		closeTab()
	})
	b := &tab{t: t, ctx: ctx, base: base}
	theme := "light"
	if l.dark {
		theme = "dark"
	}
	viewport := []chromedp.EmulateViewportOption{}
	if l.phone {
		viewport = append(viewport, chromedp.EmulateScale(2), chromedp.EmulateMobile, chromedp.EmulateTouch)
	}
	b.do(chromedp.EmulateViewport(l.width, l.height, viewport...))
	_, err = chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}},
	})
	require.NoError(t, err)
	require.NoError(t, chromedp.Listen(ctx, b.listen))
	_, err = chromedp.Call(ctx, network.Enable, network.EnableParams{})
	require.NoError(t, err)
	b.do(chromedp.Navigate(base + address))
	return b
}

// listen takes down what a page of ours never causes. It runs in the driver's loop.
func (b *tab) listen(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *runtime.EventExceptionThrown:
		text := ev.ExceptionDetails.Text
		if e := ev.ExceptionDetails.Exception; e != nil {
			text += " " + e.Description
		}
		b.faults = append(b.faults, text)
	case *runtime.EventConsoleAPICalled:
		b.faults = append(b.faults, fmt.Sprintf("console.%s", ev.Type))
	case *cdplog.EventEntryAdded:
		b.faults = append(b.faults, fmt.Sprintf("%s: %s %s", ev.Entry.Level, ev.Entry.Text, ev.Entry.URL))
	case *network.EventRequestWillBeSent:
		if u := ev.Request.URL; !strings.HasPrefix(u, b.base) {
			b.outside = append(b.outside, u)
		}
	}
}

// clean fails the test if the browser complained of anything, or if the page asked
// anything of another host. Complaints that contain one of allowed are expected.
func (b *tab) clean(allowed ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range b.faults {
		if !slices.ContainsFunc(allowed, func(text string) bool { return strings.Contains(fault, text) }) {
			b.t.Errorf("the browser says: %s", fault)
		}
	}
	require.Empty(b.t, b.outside, "requests to other hosts")
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Do(b.ctx, steps...))
}

// eval is the value of an expression in the page.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(b.t, err, expression)
	return v
}

// patience is for a machine that is busy with other things.
const patience = 20 * time.Second

// await waits until a condition holds in the page, and returns after how long.
func (b *tab) await(condition string) time.Duration {
	b.t.Helper()
	ms := eval[float64](b, fmt.Sprintf(`new Promise((done) => {
		const began = performance.now();
		const look = () => {
			const past = performance.now() - began;
			let holds = false;
			try { holds = %s; } catch (e) { if (past > %d) throw e; }
			if (holds || past > %[2]d) done(holds ? past : -1);
			else setTimeout(look, 20);
		};
		look();
	})`, condition, patience.Milliseconds()))
	if ms < 0 {
		b.shot("failed")
		b.clean()
		b.t.Fatalf("it does not come to this: %s\n%s", condition, eval[string](b, `document.body.innerText.slice(0, 700)`))
	}
	return time.Duration(ms * float64(time.Millisecond))
}

// press presses keys, each by its character or as the driver's kb has it.
func (b *tab) press(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		if len(k) == 1 && k[0] > ' ' {
			// As a keyboard does, and the driver's own does not: a page that takes the key
			// for itself spares the field the character.
			for _, p := range []input.DispatchKeyEventParams{
				{Type: input.DispatchKeyEventTypeKeyDown, Key: k, Text: k}, {Type: input.DispatchKeyEventTypeKeyUp, Key: k},
			} {
				_, err := chromedp.Call(b.ctx, input.DispatchKeyEvent, p)
				require.NoError(b.t, err)
			}
			continue
		}
		b.do(chromedp.KeyEvent(k))
	}
}

// click clicks on the middle of what a selector finds, as a mouse does.
func (b *tab) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

// texts are those of all that a selector finds, in the document's order.
func (b *tab) texts(selector string) []string {
	b.t.Helper()
	return eval[[]string](b, fmt.Sprintf(`[...document.querySelectorAll(%q)].map((e) => e.textContent)`, selector))
}

// shot takes a picture of what is in view, and keeps it if FIREBREAK_ARTIFACTS says
// where. It must have something on it.
func (b *tab) shot(name string) {
	b.t.Helper()
	data, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	require.NoError(b.t, err)
	picture, err := png.Decode(bytes.NewReader(data))
	require.NoError(b.t, err)
	colours := map[color.Color]bool{}
	for x := 0; x < picture.Bounds().Dx(); x += 3 {
		for y := 0; y < picture.Bounds().Dy(); y += 3 {
			colours[picture.At(x, y)] = true
		}
	}
	require.Greater(b.t, len(colours), 20, "an empty page")
	if dir := os.Getenv("FIREBREAK_ARTIFACTS"); dir != "" {
		require.NoError(b.t, os.MkdirAll(dir, 0o755))
		require.NoError(b.t, os.WriteFile(filepath.Join(dir, name+".png"), data, 0o644))
	}
}

// serve serves h on loopback until the end of the test.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}

// tileOf is an expression for the tile of a command.
func tileOf(name string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(".tile")].find((t) => t.querySelector("button bdi").textContent === %q)`, name)
}
