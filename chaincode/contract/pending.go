package contract

import "iter"

// What waits for the other party, and how either of them takes it off the table.

// cancel is final: a new proposal has a new id.
func cancel(tx *transaction) (effect, error) {
	id := tx.Args.Bytes("id")
	place, record := proposalKey(id), tx.find(proposalKey(id))
	isProposal := record != nil
	if !isProposal {
		place = supersessionKey(id)
		found, err := tx.record(place, "id")
		if err != nil {
			return effect{}, err
		}
		record = found
	}
	cancellation := key("cancellation", token(id))
	if first := tx.find(cancellation); first != nil && tx.own(first) {
		return repeat(cancellation, nil)
	}
	state := record.Text("state")
	if isProposal {
		state = proposalState(tx.reader, record)
	}
	if state != "pending" {
		return effect{}, refuse(WrongState, state, "")
	}
	cancelled := effect{changes: Map{cancellation: tx.stamp(), place: record.With(Map{"state": "cancelled"})}}
	if !isProposal {
		cancelled.studies = [][]byte{record.Bytes("study")}
	}
	return cancelled, nil
}

// pending is policies, then supersessions, each by id; then erasures by study.
func pending(q *question) (Value, error) {
	return page(allPending(q), q.args), nil
}

func allPending(q *question) iter.Seq[Value] {
	kinds := []struct {
		kind, prefix, name string
		waits              func(Map) bool
	}{
		{"policy", policyProposals, "id", func(r Map) bool { return proposalState(q.reader, r) == "pending" }},
		{"supersession", supersessions, "id", func(r Map) bool { return r.Text("state") == "pending" }},
		{"erasure", erasures, "study", func(r Map) bool { return r.Text("state") == "requested" }},
	}
	return func(yield func(Value) bool) {
		for _, k := range kinds {
			for key, record := range q.scanRecords(k.prefix, "") {
				if k.waits(record) && !yield(Map{"kind": k.kind, k.name: lastToken(key), "record": record}) {
					return
				}
			}
		}
	}
}
