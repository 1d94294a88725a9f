// Package contract is the ledger's contract: who may do what with a scan's chain of custody.
//
// It is pure: Apply takes a state and a call and says what changes; it has no clock, no randomness and no I/O, so that
// the same calls give the same state on every peer and on the embedded ledger, whose Python has a file for each of
// these. The rules, function by function, stand in docs/contract.md.
package contract

import (
	"maps"
	"slices"
)

const nonceBytes = 16

// Apply says what a call changes; nothing is written here. The error is a *Refusal with the first rule the call breaks;
// any other error is a state that could not be read.
func Apply(state State, call Call) (applied Applied, err error) {
	defer faults(&err)
	function, known := functions[call.Function]
	if !known {
		return Applied{}, refuse(Invalid, "function", "unknown: %q", call.Function)
	}
	if err := function.arguments.refusal(call.Args); err != nil {
		return Applied{}, err
	}
	if len(call.Nonce) != nonceBytes {
		return Applied{}, refuse(Invalid, "nonce", "expected %d bytes, got %d", nonceBytes, len(call.Nonce))
	}
	tx, err := admitted(reader{state}, call, function.roles)
	if err != nil {
		return Applied{}, err
	}
	decided, err := function.run(tx)
	if err != nil {
		return Applied{}, err
	}
	return tx.applied(decided), nil
}

// Answer is the answer to a query at a time (UTC seconds). Errors are those of Apply.
func Answer(records Records, name string, args Map, time int64) (answer Value, err error) {
	defer faults(&err)
	query, known := queries[name]
	if !known {
		return nil, refuse(Invalid, "function", "unknown query: %q", name)
	}
	if err := query.arguments.refusal(args); err != nil {
		return nil, err
	}
	scanner := scannerOf(records)
	policy, err := policyInForce(scanner.reader)
	if err != nil {
		return nil, err
	}
	return query.run(&question{scanner, policy, args, time})
}

// Functions is the names of the contract's functions, sorted.
func Functions() []string { return slices.Sorted(maps.Keys(functions)) }

// Queries is the names of its queries, sorted.
func Queries() []string { return slices.Sorted(maps.Keys(queries)) }

// admitted is the call once it has passed the checks that follow those of its form.
func admitted(state reader, call Call, permitted []string) (*transaction, error) {
	policy, err := policyFor(state, call)
	if err != nil {
		return nil, err
	}
	if err := checkSkew(policy, call); err != nil {
		return nil, err
	}
	role, member := policy.Map("organisations")[call.Caller.Organisation].(string)
	if !member {
		return nil, refuse(NotPermitted, "organisation", "%s is not in the policy", call.Caller.Organisation)
	}
	if isRevoked(state, call.Caller) {
		return nil, refuse(NotPermitted, "certificate", "%s was revoked by its organisation", call.Caller.Serial)
	}
	if !slices.Contains(permitted, role) {
		return nil, refuse(NotPermitted, "role", "%s is for %v, not %s", call.Function, permitted, role)
	}
	return &transaction{call, state, policy, role}, nil
}

// policyFor is the policy in force; for InitPolicy the one it brings, so that its sender has a role.
func policyFor(state reader, call Call) (Map, error) {
	if call.Function != "InitPolicy" {
		return policyInForce(state)
	}
	brought := call.Args.Map("policy")
	return brought, policySchema.refusal(brought)
}

func checkSkew(policy Map, call Call) error {
	most := policy.Int("max_clock_skew_s")
	if most != 0 && max(call.Time-call.HostTime, call.HostTime-call.Time) > most {
		return refuse(Skew, "time", "%d is more than %d s from the host's clock %d", call.Time, most, call.HostTime)
	}
	return nil
}

func (tx *transaction) applied(decided effect) Applied {
	if decided.repeats != "" {
		return Applied{Result: decided.result, Repeats: decided.repeats}
	}
	payload := Map{
		"function": tx.Function,
		"args":     tx.Args,
		"result":   decided.result,
		"sequence": tx.Sequence,
	}.With(tx.stamp())
	changes := decided.changes.With(Map{EventKey(tx.Sequence): payload})
	for _, study := range decided.studies {
		changes[studyEventKey(study, tx.Sequence)] = tx.Function
	}
	return Applied{Result: decided.result, Changes: changes, Event: &Event{tx.Function, payload}}
}
