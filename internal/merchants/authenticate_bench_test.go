package merchants

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
)

// benchKeys is as many keys as a large installation has.
const benchKeys = 10_000

// newBenchDirectory is a service whose directory is full. Authentication asks nobody,
// so there is no database.
func newBenchDirectory() (*Service, []KeyPair) {
	s := NewService(nil, testPolicies)
	pairs := make([]KeyPair, benchKeys)
	for i := range pairs {
		pairs[i] = newKeyPair(Test)
		s.dir.keys[pairs[i].PublicAPIKey] = &entry{
			id: pairs[i].ID, caller: Caller{AccountID: uuid.New(), Mode: Test}, hash: hashSecret(pairs[i].PrivateSecretKey), use: &use{},
		}
	}
	s.asOf = asOf{asked: time.Now(), answered: time.Now(), database: time.Now()}
	return s, pairs
}

// BenchmarkAuthenticate is what knowing the caller costs each request, from one and
// from many goroutines: the directory has one lock.
func BenchmarkAuthenticate(b *testing.B) {
	s, pairs := newBenchDirectory()
	for _, goroutines := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d goroutines for each processor", goroutines), func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(goroutines)
			var next atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for i := int(next.Add(1)) * 997; pb.Next(); i++ {
					p := pairs[i%len(pairs)]
					if _, err := s.Authenticate(p.PublicAPIKey, p.PrivateSecretKey, anywhere); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkAuthenticateStranger is the same for a key that there is not.
func BenchmarkAuthenticateStranger(b *testing.B) {
	s, pairs := newBenchDirectory()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Authenticate("unknown", pairs[0].PrivateSecretKey, anywhere); err == nil {
			b.Fatal("a stranger was let in")
		}
	}
}
