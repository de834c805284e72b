package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed" // htmx
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
)

// htmx is other people's work: see htmx/README.md.
//
//go:embed htmx/htmx.min.js.gz
var htmx []byte

// assetsPath is where the files of the pages are, each under a name with its hash in it.
const assetsPath = "/assets/"

// asset is a file of the pages.
type asset struct {
	contentType  string
	body, zipped []byte
}

// contentTypes are those of the files of the pages.
var contentTypes = map[string]string{
	"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml",
}

// stylesheets are sent as one file, in this order.
var stylesheets = []string{"console.css", "lanes.css", "charts.css"}

// files are the assets by the last part of their path, and the paths by what the templates
// call them.
type files struct {
	byName map[string]asset
	paths  map[string]string
}

var builtFiles = sync.OnceValues(func() (files, error) {
	f := files{map[string]asset{}, map[string]string{}}
	var style []byte
	for _, name := range stylesheets {
		sheet, err := fs.ReadFile(web, "web/"+name)
		if err != nil {
			return f, err
		}
		style = append(style, sheet...)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(htmx))
	if err != nil {
		return f, fmt.Errorf("unpack htmx: %w", err)
	}
	library, err := io.ReadAll(unzipped)
	if err != nil {
		return f, fmt.Errorf("unpack htmx: %w", err)
	}
	script, err := fs.ReadFile(web, "web/console.js")
	if err != nil {
		return f, err
	}
	icon, err := fs.ReadFile(web, "web/icon.svg")
	if err != nil {
		return f, err
	}
	for name, body := range map[string][]byte{"console.css": style, "htmx.js": library, "console.js": script, "icon.svg": icon} {
		if err := f.add(name, body); err != nil {
			return f, err
		}
	}
	return f, nil
})

func (f files) add(name string, body []byte) error {
	var zipped bytes.Buffer
	w, err := gzip.NewWriterLevel(&zipped, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(body); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	stem, extension, _ := strings.Cut(name, ".")
	sum := sha256.Sum256(body)
	called := stem + "." + hex.EncodeToString(sum[:8]) + "." + extension
	f.byName[called] = asset{contentTypes[extension], body, zipped.Bytes()}
	f.paths[name] = assetsPath + called
	return nil
}

// assetPaths are where the templates find the files.
func assetPaths() (map[string]string, error) {
	f, err := builtFiles()
	return f.paths, err
}
