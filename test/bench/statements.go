package main

import (
	"context"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// hot are the two statements of a payment, by their name comments.
var hot = []string{"/* transactions.begin */", "/* transactions.finish */"}

// statement is one as the product sent it.
type statement struct {
	sql  string
	args []any
}

// recorder keeps the hot statements as the product sends them, so that pgbench runs
// the product's own text whatever becomes of it.
type recorder struct {
	mu   sync.Mutex
	seen map[string]statement
}

// TraceQueryStart is called by pgx before each statement.
func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range hot {
		if strings.HasPrefix(d.SQL, name) && r.seen[name].sql == "" {
			r.seen[name] = statement{d.SQL, parametersOf(d.Args)}
		}
	}
	return ctx
}

// parametersOf leaves out what pgx is told in front of them.
func parametersOf(args []any) []any {
	return slices.DeleteFunc(slices.Clone(args), func(arg any) bool {
		switch arg.(type) {
		case pgx.QueryResultFormats, pgx.QueryResultFormatsByOID, pgx.QueryExecMode:
			return true
		}
		return false
	})
}

// TraceQueryEnd is called by pgx after each statement.
func (*recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// script is a payment for pgbench.
type script struct {
	text      string
	variables map[string]string
}

// scriptHead draws what is new in each payment. The ids increase with time as the
// product's do (UUIDv7): base grows from run to run, seq from payment to payment of
// one client.
const scriptHead = `\set seq :seq + 1
\set nonce random(1, 9000000000000000000)
\set order random(1, 9000000000000000000)
`

// Expressions in the place of what is new in each payment.
const (
	newTransactionID = `(lpad(to_hex(:base::bigint + :seq::bigint), 12, '0') || '70008' || lpad(to_hex(:client_id::bigint), 15, '0'))`
	newPaymentID     = `(lpad(to_hex(:base::bigint + :seq::bigint), 12, '0') || '70018' || lpad(to_hex(:client_id::bigint), 15, '0'))`
	newNonce         = `md5(:nonce::text)::uuid`
	newOrder         = `md5(:order::text)::uuid`
)

var (
	parameter = regexp.MustCompile(`\$(\d+)(::\w+)?`)
	cast      = regexp.MustCompile(`\$(\d+)(::\w+)`)
)

// newScript puts the recorded statements behind each other. fresh are the values of
// the recorded payment that are another payment's in each transaction, with what
// pgbench is to put there; all others stay, as parameters.
func newScript(recorded map[string]statement, fresh map[string]string) (script, error) {
	s := script{text: scriptHead, variables: map[string]string{}}
	met := map[string]bool{}
	for i, name := range hot {
		st := recorded[name]
		if st.sql == "" {
			return s, fmt.Errorf("the product did not send %s", name)
		}
		types := map[string]string{} // of each parameter, from where it has its cast
		for _, m := range cast.FindAllStringSubmatch(st.sql, -1) {
			types[m[1]] = m[2]
		}
		var problem error
		text := parameter.ReplaceAllStringFunc(st.sql, func(found string) string {
			number := parameter.FindStringSubmatch(found)[1]
			n, err := strconv.Atoi(number)
			if err != nil || n < 1 || n > len(st.args) || types[number] == "" {
				problem = fmt.Errorf("%s: $%s has no value or no type", name, number)
				return found
			}
			value, null, err := textOf(st.args[n-1])
			if err != nil {
				problem = fmt.Errorf("%s: $%s: %w", name, number, err)
			}
			what, isFresh := fresh[value]
			switch {
			case null:
				what = "NULL"
			case isFresh:
				met[value] = true
			case value == "": // which pgbench takes for no variable at all
				what = "''"
			default:
				variable := fmt.Sprintf("p%d_%d", i, n)
				s.variables[variable] = value
				what = ":" + variable
			}
			return what + types[number]
		})
		if problem != nil {
			return s, problem
		}
		s.text += strings.TrimSpace(text) + ";\n"
	}
	if len(met) != len(fresh) {
		return s, errors.New("the hot statements do not name the payment, the transaction, the nonce and the order, each as a parameter")
	}
	return s, nil
}

// arguments are the script's variables for pgbench's command line.
func (s script) arguments() []string {
	var args []string
	for _, name := range slices.Sorted(maps.Keys(s.variables)) {
		args = append(args, "-D", name+"="+s.variables[name])
	}
	return args
}

// textOf is a parameter as text.
func textOf(arg any) (text string, null bool, err error) {
	if v, ok := arg.(driver.Valuer); ok {
		if arg, err = v.Value(); err != nil {
			return "", false, err
		}
	}
	switch v := arg.(type) {
	case nil:
		return "", true, nil
	case []byte:
		return `\x` + hex.EncodeToString(v), false, nil
	case time.Time:
		return v.Format(time.RFC3339Nano), false, nil
	case string, bool, int, int32, int64:
		return fmt.Sprint(v), false, nil
	}
	return "", false, fmt.Errorf("a parameter of type %T", arg)
}
