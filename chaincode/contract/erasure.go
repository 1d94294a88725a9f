package contract

import "fmt"

// Erasure of a study: asked for by owner or custodian, confirmed by the other after a time of grace, final.
//
// none → requested → none or erased. Nothing is released from the request on.

func requestErase(tx *transaction) (effect, error) {
	erasure := erasureAsked(tx)
	if state := erasure.Text("state"); state != "none" {
		if erasure["organisation"] != tx.Caller.Organisation {
			return effect{}, refuse(WrongState, state, "")
		}
		return firstTurn(tx, "erasureRequest", erasure)
	}
	return turned(tx, "erasureRequest", Map{
		"state":        "requested",
		"number":       erasure.Int("number") + 1,
		"organisation": tx.Caller.Organisation,
		"time":         tx.Time,
	})
}

func cancelErase(tx *transaction) (effect, error) {
	erasure := erasureAsked(tx)
	if state := erasure.Text("state"); state != "requested" {
		last := tx.find(turnKey("erasureCancel", tx.Args.Bytes("study"), erasure.Int("number")))
		if last == nil || !tx.own(last) {
			return effect{}, refuse(WrongState, state, "")
		}
		return firstTurn(tx, "erasureCancel", erasure)
	}
	return turned(tx, "erasureCancel", erasure.With(Map{"state": "none"}))
}

func confirmErase(tx *transaction) (effect, error) {
	study, erasure := tx.Args.Bytes("study"), erasureAsked(tx)
	if erasure.Text("state") == "none" {
		return effect{}, refuse(WrongState, "none", "nobody asked for it")
	}
	if erasure["organisation"] == tx.Caller.Organisation {
		return effect{}, refuse(NotPermitted, "study", "its own request: the other party confirms")
	}
	confirmation := key("erasureConfirmation", token(study))
	if tx.has(confirmation) {
		return repeat(confirmation, nil)
	}
	if end := erasure.Int("time") + tx.policy.Int("erase_grace_s"); tx.Time < end {
		return effect{}, refuse(WrongState, "grace", "may be confirmed from %d on, now is %d", end, tx.Time)
	}
	return about(study, nil, Map{
		confirmation:      tx.stamp(),
		erasureKey(study): erasure.With(Map{"state": "erased"}),
	}), nil
}

func erasureDone(tx *transaction) (effect, error) {
	study := tx.Args.Bytes("study")
	done := key("erasureDone", token(study), tx.Caller.Organisation)
	if tx.has(done) {
		return repeat(done, nil)
	}
	if state := erasureOf(tx.reader, study); state != "erased" {
		return effect{}, refuse(WrongState, state, "")
	}
	return about(study, nil, Map{done: tx.stamp()}), nil
}

// erasureAsked is what was asked for last.
func erasureAsked(tx *transaction) Map {
	if asked := tx.find(erasureKey(tx.Args.Bytes("study"))); asked != nil {
		return asked
	}
	return Map{"state": "none", "number": int64(0), "organisation": nil, "time": nil}
}

// firstTurn is the repeat of a request or its end.
func firstTurn(tx *transaction, kind string, erasure Map) (effect, error) {
	key := turnKey(kind, tx.Args.Bytes("study"), erasure.Int("number"))
	first, err := tx.record(key, "study")
	if err != nil {
		return effect{}, err
	}
	return repeat(key, first.Only("version"))
}

// turned is the request or its end, and the standing it raises.
func turned(tx *transaction, kind string, erasure Map) (effect, error) {
	study := tx.Args.Bytes("study")
	version, change := raised(tx.reader, study)
	result := Map{"version": version}
	return about(study, result, change.With(Map{
		turnKey(kind, study, erasure.Int("number")): result.With(tx.stamp()),
		erasureKey(study): erasure,
	})), nil
}

func turnKey(kind string, study []byte, number int64) string {
	return fmt.Sprintf("%s/%x/%06d", kind, study, number)
}
