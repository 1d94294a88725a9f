package contract

import (
	"fmt"
	"iter"
)

// The trail: one record for every state change, and the history of a key.

const events = "event/"

// EventKey is the key of the record of the transaction with this sequence.
func EventKey(sequence int64) string {
	return fmt.Sprintf("%s%020d", events, sequence)
}

func studyEventKey(study []byte, sequence int64) string {
	return fmt.Sprintf("studyEvent/%x/%020d", study, sequence)
}

// audit is records in the order of their sequence: of a study, by an organisation, from ≤ time < until.
func audit(q *question) (Value, error) {
	return page(func(yield func(Value) bool) {
		for event := range eventsOf(q) {
			if isWanted(event, q.args) && !yield(event) {
				return
			}
		}
	}, q.args), nil
}

// historyOf is every value a key had: {sequence, time, value}, first to last.
func historyOf(q *question) (Value, error) {
	return page(func(yield func(Value) bool) {
		for write := range q.history(q.args.Text("key")) {
			time := q.find(EventKey(write.Sequence))["time"]
			if !yield(Map{"sequence": write.Sequence, "time": time, "value": write.Value}) {
				return
			}
		}
	}, q.args), nil
}

func isWanted(event, args Map) bool {
	time := event.Int("time")
	return (!args.Has("organisation") || args["organisation"] == organisationOf(event)) &&
		(!args.Has("from") || args.Int("from") <= time) &&
		(!args.Has("until") || time < args.Int("until"))
}

func eventsOf(q *question) iter.Seq[Map] {
	return func(yield func(Map) bool) {
		if !q.args.Has("study") {
			for _, event := range q.scanRecords(events) {
				if !yield(event) {
					return
				}
			}
			return
		}
		for key := range q.scan("studyEvent/"+token(q.args.Bytes("study"))+"/", "") {
			if !yield(q.find(events + lastPart(key))) {
				return
			}
		}
	}
}
