package contract

// Lineage: which training runs used which releases, and which models came of them.

// registerTrainingRun: a run on releases to one's own organisation; with a dataset, only on releases of that version.
func registerTrainingRun(tx *transaction) (effect, error) {
	id := tx.id()
	result := Map{"id": id}
	if tx.has(runKey(id)) {
		return repeat(runKey(id), result)
	}
	if tx.Args.Has("dataset") != tx.Args.Has("version") {
		return effect{}, refuse(Invalid, "dataset", "expected both dataset and version, or neither")
	}
	if tx.Args.Has("dataset") {
		if _, err := findDataset(tx); err != nil {
			return effect{}, err
		}
	}
	var studies [][]byte // one twice is told once: they are keys
	for _, release := range byteStrings(tx.Args.List("releases")) {
		study, err := checkUsed(tx, release)
		if err != nil {
			return effect{}, err
		}
		studies = append(studies, study)
	}
	return effect{result: result, changes: Map{runKey(id): tx.noted()}, studies: studies}, nil
}

func registerModel(tx *transaction) (effect, error) {
	id := tx.id()
	result := Map{"id": id}
	model := key("model", token(id))
	if tx.has(model) {
		return repeat(model, result)
	}
	run, err := tx.record(runKey(tx.Args.Bytes("run")), "run")
	if err != nil {
		return effect{}, err
	}
	if !tx.own(run) {
		return effect{}, refuse(NotPermitted, "run", "a run of another organisation")
	}
	return effect{result: result, changes: Map{model: tx.noted()}}, nil
}

// checkUsed is the study of a release that the run may name.
func checkUsed(tx *transaction, release []byte) ([]byte, error) {
	record, request, err := checkOwnRelease(tx, release, "releases")
	if err != nil {
		return nil, err
	}
	if tx.Args.Has("dataset") && differing(request, tx.Args, "dataset", "version") != "" {
		return nil, refuse(Invalid, "releases", "%x is not of a request on this dataset version", release)
	}
	return record.Bytes("study"), nil
}

func runKey(run []byte) string {
	return key("trainingRun", token(run))
}
