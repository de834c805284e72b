package oracle

import (
	"slices"
	"strings"
	"testing"

	"github.com/oncepay/oncepay/test/faults/record"
)

// under is a policy of the campaign's.
func under(t *testing.T, name string) record.Policy {
	t.Helper()
	p, ok := record.PolicyNamed(name)
	if !ok {
		t.Fatalf("there is no policy %s", name)
	}
	return p
}

// kept is a 504 that is told as the nonce's answer.
func kept(start, end int, body string) record.Op {
	return at(start, end, record.Op{Kind: record.Pay, Status: 504, Body: []byte(body), ContentType: "application/json"})
}

// open is a 504 that is not: it says when to come back.
func open(start, end int) record.Op {
	o := payError(start, end, 504, "REQUEST_TIMEOUT")
	o.ComeBack = true
	return o
}

// with changes an operation.
func with(o record.Op, change func(o *record.Op)) record.Op {
	change(&o)
	return o
}

func again(o record.Op) record.Op     { return with(o, func(o *record.Op) { o.Replayed = true }) }
func otherBody(o record.Op) record.Op { return with(o, func(o *record.Op) { o.OtherBody = true }) }

// answers is a look-up that knows of an answer with that status.
func answers(start, end, status int) record.Op {
	return with(seen(start, end, "p"), func(o *record.Op) { o.AnswerStatus = status })
}

// overLater is an age of a nonce with an answer, whose transaction was unresolved.
func overLater(start, end int) record.Op {
	return with(aged(start, end, true), func(o *record.Op) { o.Unresolved = true })
}

var reused = func(start, end int) record.Op { return payError(start, end, 422, "IDEMPOTENCY_KEY_REUSED") }

func TestWhichErrorsAPolicyKeeps(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		policy string
		op     record.Op
		want   bool
	}{
		{"an error that says nothing of coming back", "novu", kept(0, 1, "e"), true},
		{"one that says when to come back", "novu", open(0, 1), false},
		{"one that is told again, whatever it says", "ietf", again(open(0, 1)), true},
		{"the same under a policy that keeps none", "yuno", kept(0, 1, "e"), false},
		{"a provider's refusal", "fyno", payError(0, 1, 400, "INVALID_REQUEST"), true},
		{"a refusal of an action, which may be by its payment's state", "novu", with(payError(0, 1, 400, ""), func(o *record.Op) { o.Kind = record.Act }), false},
		{"such a refusal that is told again", "novu", again(with(payError(0, 1, 400, ""), func(o *record.Op) { o.Kind = record.Act })), true},
		{"a request in flight", "ietf", busy(0, 1), false},
		{"another body", "ietf", reused(0, 1), false},
		{"wrong credentials", "ietf", payError(0, 1, 401, ""), false},
		{"too many", "fyno", payError(0, 1, 429, ""), false},
		{"our own surprise", "novu", payError(0, 1, 500, ""), false},
		{"no answer at all", "novu", payFailed(0, 1), false},
		{"a success", "novu", pay201(0, 1, "p"), false},
	} {
		if got := under(t, c.policy).Keeps(c.op); got != c.want {
			t.Errorf("%s under %s is kept: %t", c.name, c.policy, got)
		}
	}
}

func TestKeptAnswer(t *testing.T) {
	t.Parallel()
	const legal = ""
	for _, c := range []struct {
		name     string
		policies string
		words    string // of the complaint
		ops      []record.Op
	}{
		{"nothing at all", "yuno novu fyno ietf", legal, nil},
		{"an error, told again and again", "novu ietf", legal, []record.Op{kept(0, 5, "e"), again(kept(6, 7, "e")), again(kept(8, 9, "e"))}},
		{"the same where nothing marks it", "fyno", legal, []record.Op{kept(0, 5, "e"), kept(6, 7, "e")}},
		{"an error that was told to two at once", "novu", legal, []record.Op{kept(0, 5, "e"), kept(4, 7, "e")}},
		{"an error that is not marked as told before", "novu ietf", "without saying so", []record.Op{kept(0, 5, "e"), kept(6, 7, "e")}},
		{"a success that is not marked as told before", "yuno novu ietf", "without saying so", []record.Op{pay201(0, 5, "p"), pay201(6, 7, "p")}},
		{"an error that becomes another one", "novu fyno ietf", "answered otherwise", []record.Op{kept(0, 5, "e"), again(kept(6, 7, "f"))}},
		{"an error told at once with another one", "novu fyno ietf", "answered otherwise", []record.Op{kept(0, 5, "e"), kept(0, 5, "f")}},
		{"an error that becomes a success", "novu fyno ietf", "answered otherwise", []record.Op{kept(0, 5, "e"), again(pay201(6, 7, "p"))}},
		{"a success that becomes an error", "novu fyno ietf", "answered otherwise", []record.Op{pay201(0, 5, "p"), again(kept(6, 7, "e"))}},
		{"an error that changes its media type", "ietf", "answered otherwise", []record.Op{
			kept(0, 5, "e"), again(with(kept(6, 7, "e"), func(o *record.Op) { o.ContentType = "application/problem+json" })),
		}},
		{"an error of which only the status changes", "novu", "answered otherwise", []record.Op{
			kept(0, 5, "e"), again(with(kept(6, 7, "e"), func(o *record.Op) { o.Status = 502 })),
		}},
		{"an error before which the outcome was open", "novu fyno ietf", legal, []record.Op{payFailed(0, 1), busy(2, 3), open(4, 5), kept(6, 7, "e")}},
		{"an outcome that is open once more", "novu fyno ietf", "as if there were no answer", []record.Op{kept(0, 5, "e"), open(6, 7)}},
		{"a request in flight after the answer", "novu fyno ietf", "as if there were no answer", []record.Op{kept(0, 5, "e"), busy(6, 7)}},
		{"one in flight that heard so late", "novu fyno ietf", legal, []record.Op{kept(0, 5, "e"), busy(4, 7)}},
		{"one in flight in a style without codes", "novu", "as if there were no answer", []record.Op{kept(0, 5, "e"), payError(6, 7, 409, "")}},
		{"we ourselves are away, or nobody hears", "novu fyno ietf", legal, []record.Op{
			kept(0, 5, "e"), with(payError(6, 7, 503, "SERVICE_UNAVAILABLE"), func(o *record.Op) { o.ComeBack = true }), payFailed(8, 9), payError(10, 11, 429, ""),
		}},
		{"errors under the policy that keeps none", "yuno", legal, []record.Op{open(0, 1), open(2, 3), pay201(4, 5, "p"), again(pay201(6, 7, "p"))}},

		{"another body is refused once there is an answer", "novu ietf", legal, []record.Op{kept(0, 5, "e"), otherBody(reused(6, 7))}},
		{"another body is refused before", "novu ietf", legal, []record.Op{otherBody(reused(0, 1)), kept(2, 5, "e")}},
		{"another body gets the answer as well", "novu ietf", "another body was answered", []record.Op{pay201(0, 5, "p"), otherBody(again(pay201(6, 7, "p")))}},
		{"another body gets an answer at once", "novu ietf", "another body was answered", []record.Op{kept(0, 5, "e"), otherBody(kept(0, 5, "e"))}},
		{"another body gets the first answer", "fyno", legal, []record.Op{kept(0, 5, "e"), otherBody(kept(6, 7, "e"))}},
		{"another body gets the first answer, marked", "yuno", legal, []record.Op{pay201(0, 5, "p"), otherBody(again(pay201(6, 7, "p")))}},
		{"another body is refused where it must not be", "fyno yuno", "refused as another body", []record.Op{pay201(0, 5, "p"), otherBody(reused(6, 7))}},
		{"another body is told to wait", "novu ietf", "as if there were no answer", []record.Op{kept(0, 5, "e"), otherBody(busy(6, 7))}},
		{"its own body is refused", "novu ietf", "refused as another body", []record.Op{kept(0, 5, "e"), reused(6, 7)}},
		{"its own body is refused under a life that was given back", "novu ietf", legal, []record.Op{reused(0, 1), kept(2, 5, "e")}},

		{"a look-up that knows the answer", "novu fyno ietf", legal, []record.Op{kept(0, 5, "e"), answers(6, 7, 504), answers(1, 8, 504)}},
		{"a look-up that knows another one", "novu fyno ietf", "with status 201", []record.Op{kept(0, 5, "e"), answers(6, 7, 201)}},
		{"a look-up that knew another one", "novu fyno ietf", "with status 201", []record.Op{answers(0, 1, 201), kept(2, 5, "e")}},
		{"a look-up that knows none", "novu fyno ietf", "knows no answer", []record.Op{kept(0, 5, "e"), unseen(6, 7)}},
		{"a look-up from before", "novu fyno ietf", legal, []record.Op{unseen(0, 1), kept(2, 5, "e"), unseen(4, 8)}},
		{"a look-up that failed", "novu", legal, []record.Op{kept(0, 5, "e"), at(6, 7, record.Op{Kind: record.Look, Failed: true})}},

		{"another answer in the next life", "novu fyno ietf", legal, []record.Op{kept(0, 5, "e"), aged(6, 7, true), open(8, 9), kept(10, 11, "f")}},
		{"another body in the next life", "novu ietf", legal, []record.Op{kept(0, 5, "e"), aged(6, 7, true), otherBody(pay201(8, 9, "p")), reused(10, 11)}},
		{"an age that ended nothing", "novu", "answered otherwise", []record.Op{kept(0, 5, "e"), aged(6, 7, false), kept(8, 9, "f")}},
		{"an age that came too late", "novu", "answered otherwise", []record.Op{kept(0, 5, "e"), again(kept(6, 7, "f")), aged(8, 9, true)}},
		{"an answer that outlives its age", "novu", legal, []record.Op{kept(0, 5, "e"), overLater(6, 7), again(kept(8, 9, "e")), pay201(10, 11, "p")}},
		{"two answers after the age", "novu", "answered otherwise", []record.Op{aged(0, 1, true), kept(2, 5, "e"), kept(6, 7, "f")}},
		{"a replay by a primary that was lost", "novu", legal, []record.Op{
			with(again(kept(0, 5, "e")), func(o *record.Op) { o.Doubtful = true }), kept(6, 7, "f"),
		}},
	} {
		for policy := range strings.FieldsSeq(c.policies) {
			t.Run(c.name+", "+policy, func(t *testing.T) {
				t.Parallel()
				wrong := contradictions(under(t, policy), c.ops)
				if (c.words == legal) != (len(wrong) == 0) || !slices.ContainsFunc(append(wrong, legal), func(w string) bool { return strings.Contains(w, c.words) }) {
					t.Errorf("complaints: %q, not of %q", wrong, c.words)
				}
			})
		}
	}
}

// An error that was told as the answer is in the database as well, unless the life has
// ended.
func TestAKeptErrorIsStored(t *testing.T) {
	t.Parallel()
	error504 := kept(0, 1, "e")
	ofShop := nonceOf(error504)
	status := 504
	for name, c := range map[string]struct {
		keys  []key
		ops   []record.Op
		wrong bool
	}{
		"as it was told":         {[]key{{shop, "n", &status, []byte("e")}}, []record.Op{error504}, false},
		"otherwise":              {[]key{{shop, "n", &status, []byte("f")}}, []record.Op{error504}, true},
		"without an answer":      {[]key{{shop, "n", nil, nil}}, []record.Op{error504}, true},
		"not at all":             {nil, []record.Op{error504}, true},
		"not after its life":     {nil, []record.Op{error504, aged(2, 3, true)}, false},
		"nor where none is kept": {nil, []record.Op{open(0, 1)}, false},
	} {
		trial := newTrial(Run{Policy: under(t, "novu"), Ops: c.ops}, world{keys: map[nonce][]key{ofShop: c.keys}})
		keptAnswer(trial)
		if got := len(trial.violations) > 0; got != c.wrong {
			t.Errorf("stored %s: %+v", name, trial.violations)
		}
	}
}

func TestFiguresCountReplaysAndKeptErrors(t *testing.T) {
	t.Parallel()
	ops := []record.Op{kept(0, 1, "e"), again(kept(2, 3, "e")), again(kept(4, 5, "e")), busy(0, 1), payFailed(0, 1)}
	trial := newTrial(Run{Policy: under(t, "novu"), Ops: ops, Ledger: []record.Entry{{MerchantOrderID: "o", AccountID: shop, Type: "PURCHASE"}}}, world{})
	keptAnswer(trial)
	if f := trial.figures; f.Replays != 2 || f.KeptErrors != 1 || f.KeptCharged != 1 {
		t.Errorf("figures: %+v", f)
	}
}

// The model of linearizability knows kept errors, too: they are answers, and tell no
// payment.
func TestLinearizableWithKeptErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		legal bool
		ops   []record.Op
	}{
		{"an error and its replay", true, []record.Op{kept(0, 5, "e"), again(kept(6, 7, "e"))}},
		{"another error", false, []record.Op{kept(0, 5, "e"), again(kept(6, 7, "f"))}},
		{"a success behind the error", false, []record.Op{kept(0, 5, "e"), pay201(6, 7, "p")}},
		{"an error behind the success", false, []record.Op{pay201(0, 5, "p"), again(kept(6, 7, "e"))}},
		{"a look-up tells the payment behind the error", true, []record.Op{kept(0, 5, "e"), seen(6, 7, "p"), again(kept(8, 9, "e")), seen(10, 11, "p")}},
		{"a look-up tells another payment", false, []record.Op{kept(0, 5, "e"), seen(6, 7, "p"), seen(8, 9, "q")}},
		{"a look-up knows the answer before it is told", true, []record.Op{payFailed(0, 1), seen(2, 3, "p"), kept(4, 5, "e")}},
		{"an open outcome behind the error", false, []record.Op{kept(0, 5, "e"), open(6, 7)}},
		{"an error that outlives its age", true, []record.Op{kept(0, 5, "e"), overLater(6, 7), again(kept(8, 9, "e")), pay201(10, 11, "p")}},
		{"an error that outlives the next life", false, []record.Op{kept(0, 5, "e"), overLater(6, 7), pay201(8, 9, "p"), again(kept(10, 11, "e"))}},
		{"an error that outlives an age that waits for nothing", false, []record.Op{kept(0, 5, "e"), aged(6, 7, true), again(kept(8, 9, "e")), pay201(10, 11, "p")}},
	} {
		trial := newTrial(Run{Policy: under(t, "novu"), Ops: c.ops}, world{})
		linearizable(trial)
		if legal := len(trial.violations) == 0; legal != c.legal || trial.figures.Undecided > 0 {
			t.Errorf("%s: legal: %t, undecided: %d, %+v", c.name, legal, trial.figures.Undecided, trial.violations)
		}
	}
}
