package contract

// A study's standing: the counter that a release must name, and the erasure that ends everything.
//
// standing/STUDY counts what takes something away from research or gives it back. A release names the number its gate
// saw, so that no gate goes by an older answer of StandingOf.

const erasures = "erasure/"

// standing is the study's standing version, 0 at first.
func standing(state reader, study []byte) int64 {
	return state.counter(standingKey(study))
}

// raised is the next standing version, and the change that makes it so.
func raised(state reader, study []byte) (int64, Map) {
	version := standing(state, study) + 1
	return version, Map{standingKey(study): version}
}

// erasureOf is none, requested or erased.
func erasureOf(state reader, study []byte) string {
	record := state.find(erasureKey(study))
	if record == nil {
		return "none"
	}
	return record.Text("state")
}

// checkNotErased is WRONG_STATE erased: final.
func checkNotErased(state reader, study []byte) error {
	if erasureOf(state, study) == "erased" {
		return refuse(WrongState, "erased", "the study was erased: nothing changes it any more")
	}
	return nil
}

func erasureKey(study []byte) string {
	return erasures + token(study)
}

func standingKey(study []byte) string {
	return key("standing", token(study))
}

// What owner and custodian must both say before research has something back.

// repeatedWord is the repeat, when the caller's role has said so under these words' key already.
func repeatedWord(tx *transaction, words string) (effect, bool) {
	said := key(words, tx.role)
	first := tx.find(said)
	if first == nil {
		return effect{}, false
	}
	return effect{result: first["result"], repeats: said}, true
}

// wordOfBoth is the caller's word. With the other party's it is complete: complete says what changes at that standing
// version. before and after are the states that the result tells.
func wordOfBoth(
	tx *transaction, words string, study []byte, before, after string, complete func(version int64) Map,
) (effect, error) {
	other := "owner"
	if tx.role == "owner" {
		other = "custodian"
	}
	state, changes := before, Map{}
	if tx.has(key(words, other)) {
		version, change := raised(tx.reader, study)
		state, changes = after, complete(version).With(change)
	}
	result := Map{"state": state}
	changes[key(words, tx.role)] = Map{"result": result}.With(tx.stamp())
	return about(study, result, changes), nil
}
