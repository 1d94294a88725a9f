package contract

// Withdrawal: research no longer gets a study or some of its instances; nothing is destroyed.

func withdraw(tx *transaction) (effect, error) {
	id, study := tx.id(), tx.Args.Bytes("study")
	if first := tx.find(withdrawalKey(id)); first != nil {
		return repeat(withdrawalKey(id), first.Only("version").With(Map{"id": id}))
	}
	if err := checkNotErased(tx.reader, study); err != nil {
		return effect{}, err
	}
	version, change := raised(tx.reader, study)
	return about(study, Map{"id": id, "version": version}, change.With(Map{
		withdrawalKey(id): tx.noted().With(Map{"state": "withdrawn", "version": version}),
		key("studyWithdrawal", token(study), token(id)): true,
	})), nil
}

func reinstate(tx *transaction) (effect, error) {
	id := tx.Args.Bytes("id")
	withdrawal, err := tx.record(withdrawalKey(id), "id")
	if err != nil {
		return effect{}, err
	}
	words := key("reinstatement", token(id))
	if repeated, said := repeatedWord(tx, words); said {
		return repeated, nil
	}
	study := withdrawal.Bytes("study")
	if err := checkNotErased(tx.reader, study); err != nil {
		return effect{}, err
	}
	return wordOfBoth(tx, words, study, "withdrawn", "reinstated", func(int64) Map {
		return Map{withdrawalKey(id): withdrawal.With(Map{"state": "reinstated"})}
	})
}

// withdrawalsOf is standing withdrawals by id; instances null: all of the study.
func withdrawalsOf(q *question, study []byte) List {
	rows := List{}
	for place := range q.scan(key("studyWithdrawal", token(study), ""), "") {
		id := lastToken(place)
		if withdrawal := q.find(withdrawalKey(id)); withdrawal.Text("state") == "withdrawn" {
			rows = append(rows, Map{"id": id, "instances": withdrawal["instances"]})
		}
	}
	return rows
}

func withdrawalKey(id []byte) string {
	return key("withdrawal", token(id))
}
