// Package apidocs serves what a caller reads: the API's document, the reference
// page that is made of it, a page for each error code, and the specification of
// idempotency keys.
//
// Everything comes out of this binary, and a Content-Security-Policy on each page
// tells the browser to fetch nothing from anywhere else: a page that is read beside
// one's secret keys talks to nobody.
package apidocs

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"

	"github.com/oncepay/oncepay/api"
	"github.com/oncepay/oncepay/docs"
)

// The paths, which pages also name to each other. Those of the errors are below
// apierr.DocPath, and the specification's is apierr.SpecificationPath.
const (
	documentPath  = "/openapi.yaml"
	referencePath = "/docs"
	assetsPath    = referencePath + "/assets/"
)

// Serves says whether a route is one of Mount's: the document, and what is at or below
// the reference.
func Serves(route string) bool {
	return route == documentPath || route == referencePath || strings.HasPrefix(route, referencePath+"/")
}

// site is everything there is to serve, ready to be written out.
type site struct {
	document, reference, errorIndex, specification *file

	errorPages map[string]*file // by code
	assets     map[string]*file // by name, which has a hash in it
}

// built makes the site for the first who asks: starting the program need not wait
// for pages that may never be read. Nothing in it depends on the configuration, so
// it fails always or never, and the tests would know.
var built = sync.OnceValues(func() (*site, error) {
	s := &site{assets: map[string]*file{}, errorPages: map[string]*file{}}
	var err error
	if s.document, err = newFile("application/yaml", api.Document); err != nil {
		return nil, err
	}
	style, err := s.addAsset("pages", ".css", "text/css; charset=utf-8", stylesheet)
	if err != nil {
		return nil, err
	}
	if err := s.addErrorPages(docs.Errors, style); err != nil {
		return nil, err
	}
	if err := s.addSpecification(docs.Specification, style); err != nil {
		return nil, err
	}
	return s, s.addReference()
})

// addAsset returns the path under which the file is served, for ever: the name
// changes when the contents do.
func (s *site) addAsset(name, extension, contentType string, body []byte) (string, error) {
	f, err := newFile(contentType, body)
	if err != nil {
		return "", err
	}
	return s.keepAsset(name, extension, f), nil
}

func (s *site) keepAsset(name, extension string, f *file) string {
	f.cacheControl = "public, max-age=31536000, immutable"
	hashed := name + "." + f.hash + extension
	s.assets[hashed] = f
	return assetsPath + hashed
}

// file is one thing to serve, in both forms.
type file struct {
	contentType  string
	cacheControl string
	policy       string // Content-Security-Policy; empty for what is no page
	hash         string // of the plain form
	plain        []byte // nil: unpack zipped, as hardly anybody asks for it
	zipped       []byte
}

// revalidate lets a browser keep a copy, and ask each time whether it is still the
// one: a new version is seen at once, and costs a 304 otherwise.
const revalidate = "no-cache"

func newFile(contentType string, body []byte) (*file, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(body); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return &file{contentType: contentType, cacheControl: revalidate, hash: hashOf(body), plain: body, zipped: b.Bytes()}, nil
}

func newPage(policy string, body []byte) (*file, error) {
	f, err := newFile("text/html; charset=utf-8", body)
	if err != nil {
		return nil, fmt.Errorf("apidocs: %w", err)
	}
	f.policy = policy
	return f, nil
}

// hashOf is long enough that two files don't meet, and short enough for a name.
func hashOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:8])
}
