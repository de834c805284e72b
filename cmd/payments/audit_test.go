package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

// auditOf runs a command on the log of a database.
func auditOf(t *testing.T, url string, args ...string) (code int, out, told string) {
	t.Helper()
	t.Setenv("DATABASE_URL", url)
	args = append([]string{"audit"}, args...)
	if pgtest.Pooled(url) {
		args = append(args, "--pgbouncer")
	}
	var stdout, stderr bytes.Buffer
	code = run(context.WithoutCancel(t.Context()), args, streams{&stdout, &stderr})
	return code, stdout.String(), stderr.String()
}

// logged is a database with three entries.
func logged(t *testing.T) (url string, account uuid.UUID) {
	t.Helper()
	url, account = pgtest.URL(t), uuid.New()
	db, err := postgres.Open(t.Context(), url, pgtest.Options(url, postgres.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	log := audit.Log{DB: db}
	ctx := audit.By(t.Context(), audit.Actor{Kind: audit.KindOperator, ID: "1", Name: "ada", Address: "192.0.2.7", RequestID: "request-1"})
	for _, e := range []struct {
		ctx context.Context
		audit.Entry
	}{
		{t.Context(), audit.Entry{Action: "merchant.created", AccountID: account, Target: "merchant/1", Details: map[string]string{"name": "Shop"}}},
		{ctx, audit.Entry{Action: "key.created", AccountID: account, Target: "key/1"}},
		{ctx, audit.Entry{Action: "operator.signed_out", Target: "operator/ada"}},
	} {
		if err := log.Append(e.ctx, e.Entry); err != nil {
			t.Fatal(err)
		}
	}
	return url, account
}

func TestAuditVerifyPrintsTheHeadAndFindsWhatWasAltered(t *testing.T) {
	url, _ := logged(t)
	code, out, told := auditOf(t, url, "verify")
	head, ok := strings.CutPrefix(out, "3 entries, each as it was written\nhead ")
	head = strings.TrimSpace(head)
	if code != exitOK || !ok || told != "" || new(audit.Anchor).UnmarshalText([]byte(head)) != nil {
		t.Fatalf("exit %d: %s%s", code, out, told)
	}
	if code, out, told := auditOf(t, url, "verify", "--anchor", head, "--json"); code != exitOK || strings.TrimSpace(out) != `{"entries":3,"head":"`+head+`","broken":null}` {
		t.Errorf("exit %d: %s%s", code, out, told)
	}
	if code, _, told := auditOf(t, url, "verify", "--anchor", "3:abcd"); code != exitUsage || !strings.Contains(told, "64 hexadecimal digits") {
		t.Errorf("half an anchor: exit %d: %s", code, told)
	}
	if code, out, _ := auditOf(t, url, "verify", "--anchor", "2"+head[1:]); code != exitFailed || !strings.HasPrefix(out, "entry 2 is not the anchor's: ") {
		t.Errorf("another anchor: exit %d: %s", code, out)
	}

	pgtest.Exec(t, url, `ALTER TABLE audit_entries DISABLE TRIGGER ALL; UPDATE audit_entries SET actor = 'eve' WHERE seq = 2`)
	code, out, told = auditOf(t, url, "verify")
	if code != exitFailed || out != "entry 2 is altered: its contents do not fit its hash\nfrom the first on, 1 entry is as it was written\n" || !strings.Contains(told, "docs/operate/audit.md") {
		t.Errorf("exit %d: %s%s", code, out, told)
	}
	var r audit.Report
	if code, out, _ := auditOf(t, url, "verify", "--json"); code != exitFailed || json.Unmarshal([]byte(out), &r) != nil || r.Broken == nil || r.Broken.Seq != 2 || r.Broken.Fault != audit.FaultAltered {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestAuditListPrintsTheNewestFirst(t *testing.T) {
	url, account := logged(t)
	code, out, told := auditOf(t, url, "list")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != exitOK || len(lines) != 3 {
		t.Fatalf("exit %d: %s%s", code, out, told)
	}
	for i, want := range []string{
		`"operator.signed_out"  "operator/ada"  by "ada" (operator)  from "192.0.2.7"`,
		`"key.created"  "key/1"  by "ada" (operator)  from "192.0.2.7"`,
		`"merchant.created"  "merchant/1"  by "system" (system)  "name"="Shop"`,
	} {
		if number := fmt.Sprintf("%d  20", 3-i); !strings.HasPrefix(lines[i], number) || !strings.HasSuffix(lines[i], "Z  "+want) {
			t.Errorf("line %d is %s, want %s … %s", i, lines[i], number, want)
		}
	}
	for filter, want := range map[string]string{
		"--target=key/1": "2", "--actor=ada": "3 2", "--action=key.created": "2", "--account-id=" + account.String(): "2 1",
		"--before=3": "2 1", "--limit=1": "3", "--actor=nobody": "",
	} {
		code, out, told := auditOf(t, url, "list", filter, "--json")
		var seen []string
		for line := range strings.Lines(out) {
			var v auditView
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			seen = append(seen, fmt.Sprint(v.Seq))
			if v.Seq == 2 && (v.Actor != "ada" || v.ActorID != "1" || v.RequestID != "request-1" || *v.AccountID != account || len(v.Hash) != 64 || v.Details == nil) {
				t.Errorf("an entry is %s", line)
			}
		}
		if code != exitOK || strings.Join(seen, " ") != want {
			t.Errorf("%s: exit %d, entries %v, want %s\n%s", filter, code, seen, want, told)
		}
	}
	for _, odd := range []string{"--limit=0", "--limit=100001", "--account-id=1"} {
		if code, _, told := auditOf(t, url, "list", odd); code != exitUsage {
			t.Errorf("%s: exit %d: %s", odd, code, told)
		}
	}
}

func TestAuditNeedsADatabase(t *testing.T) {
	if code, _, told := auditOf(t, "", "verify"); code != exitUsage || !strings.Contains(told, "DATABASE_URL") {
		t.Errorf("without one: exit %d: %s", code, told)
	}
	if code, _, told := auditOf(t, "postgres://nobody@127.0.0.1:1/nothing", "verify"); code != exitUnavailable {
		t.Errorf("where nobody answers: exit %d: %s", code, told)
	}
}
