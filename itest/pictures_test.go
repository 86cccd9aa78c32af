package itest

import (
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/firebreak-go/firebreak/dashboard"
)

// The page as people see it: light, dark, the detail, a phone, a wall. FIREBREAK_SCENE
// is how long the load runs before ("2m"), for pictures with a history.
func TestPictures(t *testing.T) {
	reg := shop(t)
	page := dashboard.New(reg, dashboard.Options{Title: "shop-front, eu-west 7"})
	t.Cleanup(page.Close)
	url := serve(t, page)
	for name, l := range map[string]look{
		"light": desk,
		"dark":  {width: 1440, height: 900, dark: true},
		"phone": {width: 390, height: 844, phone: true},
		"small": {width: 320, height: 640},
		"wall":  {width: 2560, height: 1440, dark: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, url, "/", l)
			b.await(`document.querySelectorAll(".tile").length === 22`)
			scene(t)
			b.await(tileOf("inventory.stock") + `.dataset.grade === "3"`)
			require.LessOrEqual(t, eval[int](b, `document.documentElement.scrollWidth`), int(l.width), "nothing goes over the edge")
			b.shot(name)
			b.do(chromedp.Evaluate[chromedp.Void](tileOf("inventory.stock") + `.querySelector("button").click()`))
			b.await(detailed)
			require.LessOrEqual(t, eval[int](b, `document.documentElement.scrollWidth`), int(l.width), "nothing goes over the edge")
			b.shot(name + "-detail")
			b.clean()
		})
	}
}

// scene lets the load run for a while.
func scene(t *testing.T) {
	t.Helper()
	select {
	case <-time.After(sceneTime()):
	case <-t.Context().Done():
		t.Fatal("the scene:", t.Context().Err())
	}
}
