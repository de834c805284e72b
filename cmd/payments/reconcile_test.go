package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// stepping answers with one step after the other, and notes what it was asked.
func stepping(t *testing.T, steps ...string) (url string, asked *[]string) {
	t.Helper()
	asked = &[]string{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		_, _ = body.ReadFrom(r.Body)
		*asked = append(*asked, r.Method+" "+r.URL.Path+" "+body.String())
		_, _ = w.Write([]byte(steps[min(len(*asked), len(steps))-1]))
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

const (
	firstStep = `{"provider":"PSP_A","from":"2026-11-22T08:00:00.000000Z","to":"2026-11-22T09:00:00.000000Z",
		"counts":{"matched":5,"missing_here":1,"missing_there":0,"amount_differs":0,"open":1},
		"differences":[{"provider":"PSP_A","account_id":"a","reference":"ch_1\u001b[2J","finding":"missing_here","our_status":"","our_amount":null,
		"provider_status":"approved","provider_amount":45.670,"currency":"USD","action":""}],"next":"second"}`
	secondStep = `{"provider":"PSP_A","from":"2026-11-22T09:00:00.000000Z","to":"2026-11-22T10:00:00.000000Z",
		"counts":{"matched":2,"missing_here":0,"missing_there":0,"amount_differs":0,"open":0},"differences":[],"next":"third"}`
	thirdStep = `{"provider":"PSP_B","from":"2026-11-22T08:00:00.000000Z","to":"2026-11-22T10:00:00.000000Z",
		"counts":{"matched":1,"missing_here":0,"missing_there":0,"amount_differs":0,"open":0},"differences":[],"next":null}`
)

func reconcile(t *testing.T, url string, args ...string) (code int, out, told string) {
	t.Helper()
	t.Setenv("PAYMENTS_ADMIN_TOKEN", strings.Repeat("t", 40))
	var stdout, stderr bytes.Buffer
	code = run(context.WithoutCancel(t.Context()), append([]string{"reconcile", "--admin-url", url}, args...), streams{&stdout, &stderr})
	return code, stdout.String(), stderr.String()
}

func TestReconcileGoesStepByStepAndFailsOnADifference(t *testing.T) {
	url, asked := stepping(t, firstStep, secondStep, thirdStep)
	code, out, told := reconcile(t, url, "--since", "24h", "--provider", "PSP")
	if code != exitFailed || !strings.Contains(told, "the books differ, 1 times; docs/operate/reconciliation.md") {
		t.Errorf("exit %d: %s", code, told)
	}
	want := []string{`POST /admin/v1/reconciliations {"provider":"PSP","since":"24h"}`,
		`POST /admin/v1/reconciliations {"after":"second"}`, `POST /admin/v1/reconciliations {"after":"third"}`}
	if !slices.Equal(*asked, want) {
		t.Errorf("it asked %q", *asked)
	}
	if strings.Count(told, "matched") != 3 {
		t.Errorf("the way was not told: %s", told)
	}
	for _, line := range []string{`PSP_A  missing_here  "a"  "ch_1\x1b[2J"  here nothing  there approved 45.670  "USD"`, "PSP_A     2026-11-22T08:00:00.000000Z  2026-11-22T10:00:00.000000Z  7        1"} {
		if !strings.Contains(out, line) {
			t.Errorf("without %q:\n%s", line, out)
		}
	}
}

func TestReconcileSucceedsWhereNothingDiffersAndPrintsJSON(t *testing.T) {
	url, _ := stepping(t, thirdStep)
	code, out, told := reconcile(t, url, "--since", "24h", "--json")
	var all struct {
		Providers []struct {
			Provider string
			Counts   struct{ Matched int }
		}
		Differences []json.RawMessage
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil || code != exitOK || len(all.Providers) != 1 || all.Providers[0].Counts.Matched != 1 || all.Differences == nil {
		t.Errorf("exit %d: %s %s %v", code, out, told, err)
	}
}

// The program against itself.
func TestReconcileComparesARunningInstance(t *testing.T) {
	r := start(t)
	t.Setenv("PAYMENTS_ADMIN_TOKEN", r.cfg.adminToken)
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"reconcile", "--admin-url", "http://" + r.operatorAddr, "--since", "3h"}, streams{&stdout, &stderr})
	if code != exitOK || strings.Count(stderr.String(), "TEST_BANK") != 3 || strings.Count(stdout.String(), "TEST_BANK") != 1 {
		t.Errorf("exit %d: %s %s", code, stdout.String(), stderr.String())
	}
	code = run(t.Context(), []string{"reconcile", "--admin-url", "http://" + r.operatorAddr, "--since", "yesterday"}, streams{&stdout, &stderr})
	if code != exitFailed || !strings.Contains(stderr.String(), "$.since must be a time such as 2026-11-22T08:00:00Z, or how long ago, such as 24h") {
		t.Errorf("exit %d: %s", code, stderr.String())
	}
}
