package browser

import (
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/oncepay/oncepay/internal/pgtest"
)

// said is what the pay page says, in each of its languages.
var said = map[string]struct{ paid, declined, again, expired string }{
	"en": {"Payment complete", "declined", "Try another card", "expired"},
	"es": {"Pago completado", "rechazado", "Probar con otra tarjeta", "caducado"},
	"pt": {"Pagamento concluído", "recusado", "Tentar outro cartão", "expirou"},
}

// inEachLanguage runs a test for each language of the page, on an installation of its own.
func inEachLanguage(t *testing.T, test func(t *testing.T, s *stage, language string)) {
	t.Helper()
	for language := range said {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			test(t, newStage(t), language)
		})
	}
}

func TestAShopperPays(t *testing.T) {
	t.Parallel()
	inEachLanguage(t, func(t *testing.T, s *stage, language string) {
		c, b := s.session("Two cups"), newTab(t)
		b.goTo(c.in(language))
		b.pay(goodCard)
		c.endsPaid(b)
		b.must(said[language].paid, c.order)
		b.do(chromedp.Reload())
		c.endsPaid(b)
	})
}

func TestADeclinedCardLeadsToAnother(t *testing.T) {
	t.Parallel()
	inEachLanguage(t, func(t *testing.T, s *stage, language string) {
		c, b := s.session("Two cups"), newTab(t)
		b.goTo(c.in(language))
		b.pay(poorCard)
		b.reaches("declined")
		b.must(said[language].declined, said[language].again)
		c.mustNotBePaid()
		b.do(chromedp.Click(css("button.primary")))
		b.pay(goodCard)
		c.endsPaid(b)
		if n := c.attempts(); n != 2 {
			t.Errorf("a decline and a payment were %d payments", n)
		}
	})
}

func TestTheBankAsksThePayer(t *testing.T) {
	t.Parallel()
	inEachLanguage(t, func(t *testing.T, s *stage, language string) {
		c, b := s.session("Two cups"), newTab(t)
		b.goTo(c.in(language))
		b.pay(challengeCard)
		b.do(chromedp.WaitVisible(css("#code")))
		c.mustNotBePaid()
		b.do(chromedp.SendKeys(css("#code"), "1234"), chromedp.Click(css("button[type=submit]")))
		c.endsPaid(b)
		b.must(said[language].paid)
	})
}

// TestThePayerDoesNotRecogniseThePayment on the bank's page, and pays with another card.
func TestThePayerDoesNotRecogniseThePayment(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, b := s.session("Two cups"), newTab(t)
	b.goTo(c.page())
	b.pay(challengeCard)
	b.do(chromedp.WaitVisible(css("#code")), chromedp.SendKeys(css("#code"), "1111"), chromedp.Click(css("button[type=submit]")))
	b.reaches("declined")
	c.mustNotBePaid()
	b.do(chromedp.Click(css("button.primary")))
	b.pay(goodCard)
	c.endsPaid(b)
}

// TestAPendingPaymentIsWaitedFor: the page neither offers the form again nor says that
// it is paid before it is.
func TestAPendingPaymentIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, b := s.session("sandbox:pending-then-approve=3s"), newTab(t)
	b.goTo(c.page())
	b.pay(plainCard)
	b.reaches("pending", "checking")
	b.do(chromedp.Reload())
	b.reaches("pending", "checking")
	c.endsPaid(b)
}

func TestAnExpiredSessionSaysSo(t *testing.T) {
	t.Parallel()
	inEachLanguage(t, func(t *testing.T, s *stage, language string) {
		c, b := s.session("Two cups"), newTab(t)
		c.age()
		b.goTo(c.in(language))
		b.reaches("expired")
		b.must(said[language].expired)
		c.mustNotBePaid()
	})
}

// TestASessionThatExpiresUnderTheFormTakesNothing.
func TestASessionThatExpiresUnderTheFormTakesNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, b := s.session("Two cups"), newTab(t)
	b.goTo(c.page())
	b.reaches("form")
	c.age()
	b.pay(goodCard)
	b.reaches("expired")
	c.mustNotBePaid()
}

// TestAnExpiredSessionThatWasPaidSaysThat.
func TestAnExpiredSessionThatWasPaidSaysThat(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, b := s.session("Two cups"), newTab(t)
	b.goTo(c.page())
	b.pay(goodCard)
	c.endsPaid(b)
	c.age()
	b.do(chromedp.Reload())
	c.endsPaid(b)
}

// age makes a session as old as it can get.
func (c session) age() {
	c.stage.t.Helper()
	if n := pgtest.Exec(c.stage.t, c.stage.database, `UPDATE checkout_sessions SET created_at = created_at - interval '6 hours', expires_at = expires_at - interval '6 hours' WHERE id = $1`, c.id); n != 1 {
		c.stage.t.Fatalf("%d sessions were made older", n)
	}
}
