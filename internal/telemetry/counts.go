package telemetry

import "time"

// buckets is how many durations are told apart: one for each of requestBuckets' bounds,
// and one for what took longer than all of them. sqlReadMinutes names them one by one.
const buckets = 14

// Counts are what merchants' requests met in some time. Requests with a nonce are Began,
// Replayed or Conflicts; look-ups and requests that were not valid are none of these.
type Counts struct {
	Requests  int64
	Failures  int64 // answered with 5xx
	Began     int64 // whose nonce was new, or was taken over from a request that broke off
	Replayed  int64 // which were told the first answer
	Conflicts int64 // whose nonce was in process, or named another request

	// Durations are how many took at most so long: up to 5, 10, 25, 50, 100, 250 and
	// 500 ms, 1, 2.5, 5, 10, 30 and 60 s, each without those before; the last, longer.
	Durations [buckets]int64
}

func (c Counts) plus(o Counts) Counts {
	c.Requests, c.Failures = c.Requests+o.Requests, c.Failures+o.Failures
	c.Began, c.Replayed, c.Conflicts = c.Began+o.Began, c.Replayed+o.Replayed, c.Conflicts+o.Conflicts
	for i, n := range o.Durations {
		c.Durations[i] += n
	}
	return c
}

func (c Counts) less(o Counts) Counts {
	c.Requests, c.Failures = c.Requests-o.Requests, c.Failures-o.Failures
	c.Began, c.Replayed, c.Conflicts = c.Began-o.Began, c.Replayed-o.Replayed, c.Conflicts-o.Conflicts
	for i, n := range o.Durations {
		c.Durations[i] -= n
	}
	return c
}

// Nonces is how many requests came with a nonce and were valid.
func (c Counts) Nonces() int64 { return c.Began + c.Replayed + c.Conflicts }

// Longest is up to where durations are told apart; of a longer one only that is known.
const Longest = time.Minute

// Estimate is a quantile of durations.
type Estimate struct {
	Known  bool // false: there was no request
	Beyond bool // longer than Longest, nobody knows by how much; At is Longest
	At     time.Duration
}

// Quantile estimates how long the quickest part q of the requests took at most, 0 < q <= 1,
// as Prometheus does: requests are taken to be spread evenly within their bucket.
func (c Counts) Quantile(q float64) Estimate {
	var all int64
	for _, n := range c.Durations {
		all += n
	}
	if all <= 0 {
		return Estimate{}
	}
	rank, below, from := q*float64(all), 0.0, 0.0
	for i, to := range requestBuckets {
		n := float64(c.Durations[i])
		if n > 0 && below+n >= rank {
			seconds := from + (to-from)*max(0, rank-below)/n
			return Estimate{Known: true, At: time.Duration(seconds * float64(time.Second))}
		}
		below, from = below+n, to
	}
	return Estimate{Known: true, Beyond: true, At: Longest}
}
