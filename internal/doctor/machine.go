package doctor

import (
	"fmt"
	"time"
)

const (
	// filesBeside is what a process opens beside its clients' connections: those to
	// a provider (512), to the database (20), listeners and logs, rounded up.
	filesBeside = 640
	// skewWarn and skewBad are how far our clock may be from the database's. No
	// decision about money goes by ours; certificates, tokens and logs do.
	skewWarn = time.Second
	skewBad  = time.Minute
)

func openFiles(f *facts) verdict {
	if f.openFiles.err != nil {
		return warn(f.openFiles.err.Error(), "Look at `ulimit -n`.")
	}
	need := uint64(max(f.set.MaxInFlight, 0)) + filesBeside
	if f.openFiles.got < need {
		return warn(
			fmt.Sprintf("%d files may be open; %d requests in flight and their connections need %d. Beyond it, connections are refused", f.openFiles.got, f.set.MaxInFlight, need),
			fmt.Sprintf("Raise it (LimitNOFILE=%d in a systemd unit, `ulimit -n %d` in a shell), or lower --max-in-flight.", need, need))
	}
	return fine(fmt.Sprintf("%d files may be open; %d are needed", f.openFiles.got, need))
}

func clock(f *facts) verdict {
	s := f.skew.got
	off := max(s.ahead.Abs()-s.within, 0).Round(time.Millisecond) // at least
	const next = "Let both machines keep time by NTP (`timedatectl`, `chronyc tracking`)."
	switch {
	case off > skewBad:
		return bad(fmt.Sprintf("this machine's clock and the database's are %s apart: certificates and credentials will be judged wrongly", plain(off)), next)
	case off > skewWarn:
		return warn(fmt.Sprintf("this machine's clock and the database's are %s apart: logs and timelines will not fit together", plain(off)), next)
	}
	return fine(fmt.Sprintf("this machine's clock and the database's agree within %s", plain(max(s.ahead.Abs()+s.within, time.Millisecond))))
}
