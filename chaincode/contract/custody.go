package contract

// Which record of an instance is the current one: conflicts noted, supersession proposed and confirmed.

const supersessions = "supersede/"

func reportConflict(tx *transaction) (effect, error) {
	study, id := tx.Args.Bytes("study"), tx.id()
	conflict, result := key("conflict", token(study), token(id)), Map{"id": id}
	if tx.has(conflict) {
		return repeat(conflict, result)
	}
	return about(study, result, Map{conflict: tx.noted()}), nil
}

func supersede(tx *transaction) (effect, error) {
	id := tx.id()
	result := Map{"id": id}
	if tx.has(supersessionKey(id)) {
		return repeat(supersessionKey(id), result)
	}
	for _, name := range []string{"oldManifest", "newManifest"} {
		if err := checkAnchored(tx, name); err != nil {
			return effect{}, err
		}
	}
	if tx.Args["oldManifest"] == tx.Args["newManifest"] {
		return effect{}, refuse(Invalid, "newManifest", "the same as oldManifest")
	}
	if err := checkCurrent(tx.reader, tx.Args); err != nil {
		return effect{}, err
	}
	record := tx.noted().With(Map{"state": "pending"})
	return about(tx.Args.Bytes("study"), result, Map{supersessionKey(id): record}), nil
}

func confirmSupersede(tx *transaction) (effect, error) {
	id := tx.Args.Bytes("id")
	pending, err := tx.record(supersessionKey(id), "id")
	if err != nil {
		return effect{}, err
	}
	confirmation := key("confirmedSupersede", token(id))
	if first := tx.find(confirmation); first != nil {
		return repeat(confirmation, first.Only("version"))
	}
	if state := pending.Text("state"); state != "pending" {
		return effect{}, refuse(WrongState, state, "propose it anew")
	}
	if err := checkCurrent(tx.reader, pending); err != nil {
		return effect{}, err
	}
	study := pending.Bytes("study")
	version, change := raised(tx.reader, study)
	result := Map{"version": version}
	return about(study, result, change.With(Map{
		confirmation:        result.With(tx.stamp()),
		supersessionKey(id): pending.With(Map{"state": "confirmed"}),
		currentKey(study, pending.Bytes("instance")): Map{"newManifest": pending["newManifest"], "supersede": id},
	})), nil
}

// currentManifest is the manifest with the instance's current record by a confirmed supersession; "" before the first.
func currentManifest(state reader, study, instance []byte) string {
	current := state.find(currentKey(study, instance))
	if current == nil {
		return ""
	}
	return current.Text("newManifest")
}

func superseded(q *question, study []byte) List {
	rows := List{}
	for key, current := range q.scanRecords(key("superseded", token(study), ""), "") {
		rows = append(rows, Map{"instance": lastToken(key), "newManifest": current["newManifest"]})
	}
	return rows
}

func supersessionKey(id []byte) string {
	return supersessions + token(id)
}

// checkCurrent: a supersession starts from the current record; before the first one the first anchor's, which readers
// know. The error is WRONG_STATE erased or oldManifest.
func checkCurrent(state reader, change Map) error {
	study := change.Bytes("study")
	if err := checkNotErased(state, study); err != nil {
		return err
	}
	current := currentManifest(state, study, change.Bytes("instance"))
	if current != "" && current != change["oldManifest"] {
		return refuse(WrongState, "oldManifest", "the current record is in %s", current)
	}
	return nil
}

func currentKey(study, instance []byte) string {
	return key("superseded", token(study), token(instance))
}
