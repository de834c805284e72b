// Package faultpoint names the moments at which the fault campaign
// (test/faults) may kill a process, freeze it, or hold it: those between which a
// crash makes a difference.
//
// In the product Reach does nothing, and the compiler leaves nothing of it. Built
// with the tag faultpoints, each Reach asks the campaign what is to happen.
package faultpoint

// Point is a moment that a process reaches while it works on a nonce.
type Point string

// The points, in the order in which a payment meets them.
const (
	// BeginBefore: the nonce is about to be claimed.
	BeginBefore Point = "begin.before"
	// BeginAfter: the claim is committed, and nothing has been sent.
	BeginAfter Point = "begin.after"
	// SendBefore: a charge is about to be sent; the time to send has been looked at.
	SendBefore Point = "send.before"
	// SendWire: the time to send has been looked at for the last time, just before
	// the first byte of a charge or a void.
	SendWire Point = "send.wire"
	// SendAfter: the exchange is over, and nobody but this process knows how.
	SendAfter Point = "send.after"
	// FinishBefore: an outcome is about to be saved.
	FinishBefore Point = "finish.before"
	// FinishAfter: an outcome is committed, or did not match any more.
	FinishAfter Point = "finish.after"
	// LeaveBefore: a holder is about to give up without an outcome.
	LeaveBefore Point = "leave.before"
	// LeaveAfter: it has given up.
	LeaveAfter Point = "leave.after"
	// ObserveBefore: what a fenced-out holder learnt is about to be kept.
	ObserveBefore Point = "observe.before"
	// AnswerBefore: a request is about to be answered.
	AnswerBefore Point = "answer.before"
	// ResumeBefore: a request has read an unresolved nonce and is about to take its
	// transaction over.
	ResumeBefore Point = "resume.before"
	// ResumeAfter: it has taken it over.
	ResumeAfter Point = "resume.after"
	// EndLifeBefore: a request has read a nonce whose time is over and is about to
	// remove that life.
	EndLifeBefore Point = "end_life.before"
	// RecoverBefore: recovery is about to take a transaction over.
	RecoverBefore Point = "recover.before"
	// RecoverAfter: it has taken it over.
	RecoverAfter Point = "recover.after"
	// RecoverAsked: it has asked the provider, and nothing is saved.
	RecoverAsked Point = "recover.asked"
	// VoidBefore: the provider is about to be asked to refuse a reference from now on.
	VoidBefore Point = "void.before"
	// VoidAfter: it has been asked.
	VoidAfter Point = "void.after"
	// ResolveAfter: a person's decision has taken a transaction over.
	ResolveAfter Point = "resolve.after"
	// CallbackKept: a provider's callback is written down, and nobody has acted on it.
	CallbackKept Point = "callback.kept"
	// PurgeBefore: expired nonces are about to be removed. It has no nonce.
	PurgeBefore Point = "purge.before"
	// PurgeAfter: some were removed, and it is committed. It has no nonce.
	PurgeAfter Point = "purge.after"
)

// Points are all of them, in that order.
var Points = []Point{
	BeginBefore, BeginAfter, SendBefore, SendWire, SendAfter, FinishBefore, FinishAfter, LeaveBefore, LeaveAfter, ObserveBefore,
	AnswerBefore, ResumeBefore, ResumeAfter, EndLifeBefore, RecoverBefore, RecoverAfter, RecoverAsked, VoidBefore, VoidAfter,
	ResolveAfter, CallbackKept, PurgeBefore, PurgeAfter,
}

// What a process is told at a point, besides to go on.
const (
	Go   = "go"
	Die  = "die"  // SIGKILL, at once
	Stop = "stop" // SIGSTOP; the campaign continues it later
)

// Question is what a process asks at a point: one line of JSON. The answer is one
// word on a line, and may be long in coming.
type Question struct {
	Point    Point  `json:"point"`
	Nonce    string `json:"nonce,omitempty"`
	Instance string `json:"instance"`
	PID      int    `json:"pid"`
}

// The variables of a process built for the campaign.
const (
	EnvSocket   = "ONCEPAY_FAULTS_SOCKET"   // the UNIX socket to ask at; empty: never ask
	EnvInstance = "ONCEPAY_FAULTS_INSTANCE" // what the campaign calls this process
	EnvWithhold = "ONCEPAY_FAULTS_WITHHOLD" // traits the sandbox's adapter is not to have: idempotent,queryable,can_void
)
