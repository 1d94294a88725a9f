package contract

import (
	"fmt"
	"iter"
)

// The trail: one record for every state change, and the history of a key.

const events = "event/"

// EventKey is the key of the record of the transaction with this sequence.
func EventKey(sequence int64) string {
	return events + sequenceDigits(sequence)
}

func studyEventKey(study []byte, sequence int64) string {
	return studyEvents(study) + sequenceDigits(sequence)
}

func studyEvents(study []byte) string { return key("studyEvent", token(study), "") }

func sequenceDigits(sequence int64) string { return fmt.Sprintf("%020d", sequence) }

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
	prefix, after := events, ""
	if q.args.Has("study") {
		prefix = studyEvents(q.args.Bytes("study"))
	}
	if q.args.Has("after") {
		after = prefix + sequenceDigits(q.args.Int("after"))
	}
	return func(yield func(Map) bool) {
		for key, value := range q.scan(prefix, after) {
			if q.args.Has("study") {
				value = q.get(events + lastPart(key))
			}
			if !yield(asRecord(key, value)) {
				return
			}
		}
	}
}
