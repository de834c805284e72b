package checkout

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	_ "embed" // the page's parts
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html/template"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/sdk/js"
)

// PageSession is what the pay page has to know of a checkout session.
type PageSession struct {
	ID, AccountID uuid.UUID
	Mode          string
	Workflow      string
	MerchantName  string
	// PublicKey is one of the account's, of the session's mode. A browser pays with it.
	PublicKey string
	// CallbackURL is where the shopper goes back to; "" for nowhere.
	CallbackURL string
	// Origins are whose pages may show this one in a frame.
	Origins []string
	// Expired says that the session takes no payment any more. The page still tells what
	// became of it.
	Expired bool
}

// The parts of the page. pay.js is built from sdk/js/src; see there.
var (
	//go:embed web/page.html
	pageHTML string
	//go:embed web/pay.css
	pageStyle []byte
	//go:embed web/pay.js
	pageScript []byte
	//go:embed web/icon.svg
	pageIcon []byte

	pageTemplate = template.Must(template.New("page").Parse(pageHTML))
)

// pageTexts is what the server says on the page; its script has the rest.
type pageTexts struct {
	Title, NoScript, NoScriptText string
	Expired, ExpiredText          string
	Missing, MissingText          string
	Unavailable, UnavailableText  string
	Gone, GoneText                string // one of the pairs above
}

// pageLanguages are the page's languages; defaultLanguage is for who asks for none of them.
var pageLanguages = map[string]pageTexts{
	"en": {
		Title: "Payment", NoScript: "This page needs JavaScript", NoScriptText: "Please switch it on in your browser, and load the page again.",
		Expired: "This page has expired", ExpiredText: "Go back to the shop to start again.",
		Missing: "There is no payment here", MissingText: "The address may be incomplete. Go back to the shop to start again.",
		Unavailable: "We cannot show this page now", UnavailableText: "Please load it again in a moment. If you have paid already, do not pay again: this page will show it.",
	},
	"es": {
		Title: "Pago", NoScript: "Esta página necesita JavaScript", NoScriptText: "Actívalo en tu navegador y vuelve a cargar la página.",
		Expired: "Esta página ha caducado", ExpiredText: "Vuelve a la tienda para empezar de nuevo.",
		Missing: "Aquí no hay ningún pago", MissingText: "Puede que la dirección esté incompleta. Vuelve a la tienda para empezar de nuevo.",
		Unavailable: "Ahora no podemos mostrar esta página", UnavailableText: "Vuelve a cargarla dentro de poco. Si ya has pagado, no pagues otra vez: esta página lo mostrará.",
	},
	"pt": {
		Title: "Pagamento", NoScript: "Esta página precisa de JavaScript", NoScriptText: "Ative-o no navegador e carregue a página de novo.",
		Expired: "Esta página expirou", ExpiredText: "Volte à loja para começar de novo.",
		Missing: "Não há pagamento aqui", MissingText: "O endereço pode estar incompleto. Volte à loja para começar de novo.",
		Unavailable: "Não podemos mostrar esta página agora", UnavailableText: "Carregue-a de novo daqui a pouco. Se você já pagou, não pague de novo: esta página vai mostrar.",
	},
}

const defaultLanguage = "en"

// pageLanguage is the language that a shopper reads: what the address says, else the
// browser's first choice that there is.
func pageLanguage(asked, acceptLanguage string) string {
	if language, ok := languageOf(asked); ok {
		return language
	}
	type choice struct {
		language string
		weight   float64
	}
	var choices []choice
	for part := range strings.SplitSeq(acceptLanguage, ",") {
		tag, parameter, _ := strings.Cut(part, ";")
		weight := 1.0
		if q, ok := strings.CutPrefix(strings.TrimSpace(parameter), "q="); ok {
			var err error
			if weight, err = strconv.ParseFloat(q, 64); err != nil {
				continue
			}
		}
		if language, ok := languageOf(tag); ok && weight > 0 {
			choices = append(choices, choice{language, weight})
		}
	}
	slices.SortStableFunc(choices, func(a, b choice) int {
		switch {
		case a.weight > b.weight:
			return -1
		case a.weight < b.weight:
			return 1
		}
		return 0
	})
	if len(choices) > 0 {
		return choices[0].language
	}
	return defaultLanguage
}

// languageOf is the one of ours that a language tag means.
func languageOf(tag string) (string, bool) {
	primary, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(tag)), "-")
	_, ok := pageLanguages[primary]
	return primary, ok
}

// standing is how the page finds its session.
type standing int

const (
	standsOpen standing = iota
	standsExpired
	standsMissing
	standsUnavailable // nobody could look
)

// pageView is what the template is filled with.
type pageView struct {
	Session             PageSession
	Language            string
	Texts               pageTexts
	Live, Gone          bool
	Origins             string
	Script, Style, Icon string // where they are; no script: the page only says something
}

// renderPage makes the page. The script of an expired session's page still asks what became
// of it: the shopper may have come back from their bank late.
func renderPage(s PageSession, language string, how standing) ([]byte, error) {
	parts, err := pageAssets()
	if err != nil {
		return nil, err
	}
	v := pageView{
		Session: s, Language: language, Texts: pageLanguages[language], Live: s.Mode == merchants.Live,
		Gone: how != standsOpen, Origins: strings.Join(frameOrigins(s.Origins), " "),
		Style: parts.path("pay.css"), Icon: parts.path("icon.svg"),
	}
	switch how {
	case standsOpen:
		v.Script = parts.path("pay.js")
	case standsExpired:
		v.Script = parts.path("pay.js")
		v.Texts.Gone, v.Texts.GoneText = v.Texts.Expired, v.Texts.ExpiredText
	case standsMissing:
		v.Texts.Gone, v.Texts.GoneText = v.Texts.Missing, v.Texts.MissingText
	case standsUnavailable:
		v.Texts.Gone, v.Texts.GoneText = v.Texts.Unavailable, v.Texts.UnavailableText
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, v); err != nil {
		return nil, fmt.Errorf("make the pay page: %w", err)
	}
	return b.Bytes(), nil
}

// originForm is an origin that can be written into a policy, which would take a semicolon or
// a blank for its own.
var originForm = regexp.MustCompile(`^https?://[0-9A-Za-z.:\[\]-]+$`)

// frameOrigins are the origins that can be written into a header. Others are left out: they
// cannot be a page's.
func frameOrigins(registered []string) []string {
	var good []string
	for _, origin := range registered {
		if u, err := url.Parse(origin); err == nil && originForm.MatchString(origin) && u.Host != "" {
			good = append(good, origin)
		}
	}
	return good
}

// pagePolicy lets the page use what comes from here and nothing else, talk to this API only,
// and be framed by ourselves and the account's own pages. The same holds for the page on its
// own: a bank sends the shopper back to it inside the merchant's frame.
func pagePolicy(origins []string) string {
	return strings.Join([]string{
		"default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'",
		"base-uri 'none'", "form-action 'none'",
		strings.Join(append([]string{"frame-ancestors 'self'"}, frameOrigins(origins)...), " "),
	}, "; ")
}

// asset is a file that the page or a merchant's page loads, in both forms.
type asset struct {
	contentType  string
	body, zipped []byte
	hash         string // of the body, in its name or tag
}

// newAssets packs files once, for all who take them packed. That depends on nothing but the
// program, so it fails always or never, and the tests would know.
func newAssets(files assets) (assets, error) {
	for name, file := range files {
		var b bytes.Buffer
		w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		if err == nil {
			_, err = w.Write(file.body)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
		file.zipped, file.hash = b.Bytes(), hashOf(file.body)
		files[name] = file
	}
	return files, nil
}

// acceptsGzip reads Accept-Encoding. Only a weight of 0 refuses.
func acceptsGzip(acceptEncoding string) bool {
	for part := range strings.SplitSeq(acceptEncoding, ",") {
		coding, parameter, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			continue
		}
		weight, isWeight := strings.CutPrefix(strings.TrimSpace(parameter), "q=")
		q, err := strconv.ParseFloat(weight, 64)
		return !isWeight || err == nil && q > 0
	}
	return false
}

// assets are the page's files by name.
type assets map[string]asset

const assetsPath = "/pay/assets/"

const scriptType = "text/javascript; charset=utf-8"

// pageAssets are hashed and packed for the first who asks.
var pageAssets = sync.OnceValues(func() (assets, error) {
	return newAssets(assets{
		"pay.js":   {contentType: scriptType, body: pageScript},
		"pay.css":  {contentType: "text/css; charset=utf-8", body: pageStyle},
		"icon.svg": {contentType: "image/svg+xml", body: pageIcon},
	})
})

// sdkFiles are the SDK's by their paths.
var sdkFiles = sync.OnceValues(func() (assets, error) {
	return newAssets(assets{
		sdkPath:       {contentType: scriptType, body: js.SDK},
		sdkTypesPath:  {contentType: "text/plain; charset=utf-8", body: js.Types},
		integrityPath: {contentType: "application/json", body: fmt.Appendf(nil, `{"url":%q,"integrity":%q}`, sdkPath, Integrity())},
	})
})

// path is where an asset is: its name changes when its contents do.
func (a assets) path(name string) string {
	base, extension, _ := strings.Cut(name, ".")
	return assetsPath + base + "." + a[name].hash + "." + extension
}

// find is the asset behind a name in an address, and whether the address has its hash. While
// instances are upgraded one by one, a page from one may ask the other for its script: it gets
// the other's, which does as well.
func (a assets) find(name string) (file asset, current, ok bool) {
	parts := strings.Split(name, ".")
	if len(parts) != 3 {
		return asset{}, false, false
	}
	file, ok = a[parts[0]+"."+parts[2]]
	return file, file.hash == parts[1], ok
}

// hashOf is long enough that two files don't meet, and short enough for a name.
func hashOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:8])
}

// The SDK's places.
const (
	sdkPath       = "/sdk/v1/oncepay.js"
	sdkTypesPath  = "/sdk/v1/oncepay.d.ts"
	integrityPath = "/sdk/v1/integrity.json"
)

// Integrity is the SDK's hash, as the attribute integrity of a script element takes it.
func Integrity() string {
	sum := sha512.Sum384(js.SDK)
	return "sha384-" + base64.StdEncoding.EncodeToString(sum[:])
}
