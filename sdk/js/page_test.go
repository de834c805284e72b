package js_test

import "testing"

// TestAShopperPays in each language, wide and narrow, by day and by night.
func TestAShopperPays(t *testing.T) {
	for _, language := range []string{"en", "es", "pt"} {
		for _, scheme := range []string{"light", "dark"} {
			for width, view := range map[int64]string{1280: "wide", 390: "narrow"} {
				t.Run(language+" "+scheme+" "+view, func(t *testing.T) {
					api := newFakeAPI(t, "SDK_SEAMLESS")
					b := newTab(t)
					b.look(width, 844, scheme)
					b.goTo(api.page() + "?lang=" + language)
					b.reaches("form")
					name := language + "-" + scheme + "-" + view
					b.shoot(name + "-form")
					b.fill(goodCard)
					b.shoot(name + "-filled")
					b.submit()
					b.reaches("success")
					b.shoot(name + "-success")
					if got := eval[string](b, "document.documentElement.lang"); got != language {
						t.Errorf("the page says it is in %q", got)
					}
					if api.charges() != 1 || len(api.sent()) != 1 {
						t.Errorf("%d charges with %d nonces", api.charges(), len(api.sent()))
					}
				})
			}
		}
	}
}
