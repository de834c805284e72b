package browser

import (
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

func TestZZTmp(t *testing.T) {
	f := furnish(t)
	d := f.admin
	for what, path := range f.pages() {
		for _, look := range []int{0, 3} {
			l := looks4[look]
			d.looks(l.width, 400, l.scheme)
			d.open(path)
			if os.Getenv("OPENED") != "" {
				eval[bool](d.tab, `(document.querySelectorAll("details").forEach(e => { e.open = true }), document.title !== "")`)
			}
			d.looks(l.width, min(2400, eval[int64](d.tab, `document.documentElement.scrollHeight`)), l.scheme)
			picture, err := chromedp.Run(d.ctx, chromedp.CaptureScreenshot())
			if err != nil {
				t.Fatal(err)
			}
			name := strings.ReplaceAll(what+"-"+l.name, " ", "_")
			os.MkdirAll("/tmp/shots-browser/all", 0o755)
			os.WriteFile("/tmp/shots-browser/all/"+name+".png", picture, 0o644)
		}
	}
}
