package contract

import (
	"fmt"
	"iter"

	"orthanc-ledger/chaincode/ipld"
)

// reader reads records for the rules. What keeps it from that is no rule's business: it panics with a fault, which
// Apply and Answer give back as an error.
type reader struct {
	state State
}

// fault is a state that cannot be read, or holds what no function wrote.
type fault struct {
	error
}

// faults turns the panic of a reader into the error of a function of this package.
func faults(err *error) {
	switch cause := recover().(type) {
	case nil:
	case fault:
		*err = fmt.Errorf("state: %w", cause.error)
	case ipld.Mistyped:
		*err = fmt.Errorf("state: %w", cause)
	default:
		panic(cause)
	}
}

// getAll is the values under the keys, in one go; nil where there is none.
func (r reader) getAll(keys []string) []Value {
	values, err := r.state.Get(keys...)
	if err == nil && len(values) != len(keys) {
		err = fmt.Errorf("expected the values of %d keys, got %d", len(keys), len(values))
	}
	if err != nil {
		panic(fault{err})
	}
	return values
}

// get is the value under a key, or nil.
func (r reader) get(key string) Value {
	return r.getAll([]string{key})[0]
}

func (r reader) has(key string) bool {
	return r.get(key) != nil
}

// find is the record under a key, or nil.
func (r reader) find(key string) Map {
	value := r.get(key)
	if value == nil {
		return nil
	}
	return asRecord(key, value)
}

// record is the record an argument names. The error is NOT_FOUND with the argument's name when there is none.
func (r reader) record(key, argument string) (Map, error) {
	found := r.find(key)
	if found == nil {
		return nil, refuse(NotFound, argument, "no record %s", key)
	}
	return found, nil
}

// counter is the number under a key, 0 at first.
func (r reader) counter(key string) int64 {
	value := r.get(key)
	if value == nil {
		return 0
	}
	return Map{key: value}.Int(key)
}

// scanner reads what only queries may read besides.
type scanner struct {
	reader
	records Records
}

func scannerOf(records Records) scanner {
	return scanner{reader{records}, records}
}

// scan gives the keys > after that begin with the prefix, and their values, ascending.
func (s scanner) scan(prefix, after string) iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		for entry, err := range s.records.Scan(prefix, after) {
			if err != nil {
				panic(fault{err})
			}
			if !yield(entry.Key, entry.Value) {
				return
			}
		}
	}
}

// scanRecords is scan where every value is a record.
func (s scanner) scanRecords(prefix, after string) iter.Seq2[string, Map] {
	return func(yield func(string, Map) bool) {
		for key, value := range s.scan(prefix, after) {
			if !yield(key, asRecord(key, value)) {
				return
			}
		}
	}
}

// history gives every write of a key, first to last.
func (s scanner) history(key string) iter.Seq[Write] {
	return func(yield func(Write) bool) {
		for write, err := range s.records.History(key) {
			if err != nil {
				panic(fault{err})
			}
			if !yield(write) {
				return
			}
		}
	}
}

func asRecord(key string, value Value) Map {
	return Map{key: value}.Map(key)
}
