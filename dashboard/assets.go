package dashboard

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed assets
var files embed.FS

// assets are the page's files by their names, the page itself by an empty one.
var assets = load()

type asset struct {
	kind  string // its media type
	plain []byte
	sum   string // quoted, for ETag
	zip   func() []byte
}

type library struct {
	byName map[string]*asset
	sum    string // of all
}

// kinds, since what the system says of a file's ending may be anything.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

func load() library {
	l := library{byName: map[string]*asset{}}
	all := sha256.New()
	entries, err := files.ReadDir("assets")
	if err != nil {
		panic(err) // they are in the binary
	}
	for _, e := range entries {
		data, err := files.ReadFile("assets/" + e.Name())
		if err != nil {
			panic(err)
		}
		all.Write(data)
		sum := sha256.Sum256(data)
		name := e.Name()
		if name == "index.html" {
			name = ""
		}
		l.byName[name] = &asset{
			kind: kinds[path.Ext(e.Name())], plain: data, sum: `"` + hex.EncodeToString(sum[:8]) + `"`,
			zip: sync.OnceValue(func() []byte { return zip(data) }),
		}
	}
	l.sum = hex.EncodeToString(all.Sum(nil)[:8])
	return l
}

func zip(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(data) //nolint:errcheck // memory takes it
	z.Close()     //nolint:errcheck // likewise
	return b.Bytes()
}

// serveAsset serves one, or the page. An address of the page without its slash, as
// StripPrefix leaves it, would have the browser look for the assets beside it.
func serveAsset(w http.ResponseWriter, r *http.Request, name string) {
	a := assets.byName[name]
	if a == nil {
		http.NotFound(w, r)
		return
	}
	if r.URL.Path == "" {
		asked, _, _ := strings.Cut(r.RequestURI, "?")
		w.Header().Set("Location", "./"+path.Base(asked)+"/")
		w.WriteHeader(http.StatusPermanentRedirect)
		return
	}
	head := w.Header()
	head.Set("Content-Type", a.kind)
	head.Set("Cache-Control", "no-cache") // ask each time; the tag spares the bytes
	head.Set("ETag", a.sum)
	head.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("If-None-Match"), a.sum) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	data := a.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		data = a.zip()
		head.Set("Content-Encoding", "gzip")
	}
	head.Set("Content-Length", strconv.Itoa(len(data)))
	if r.Method != http.MethodHead {
		w.Write(data) //nolint:errcheck // whoever asked has gone
	}
}
