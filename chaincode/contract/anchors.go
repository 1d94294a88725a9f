package contract

import "fmt"

// Anchors: which manifests there are, of which study, and which of them the custodian stores.

const (
	anchorPrefix = "anchor/"
	// How many approvals there were that cover what a dataset's studies had until then.
	datasetApprovals = "datasetApprovals"
)

func anchor(tx *transaction) (effect, error) {
	cid, study := tx.Args.Text("manifestCid"), tx.Args.Bytes("study")
	if first := tx.find(anchorKey(cid)); first != nil {
		if name := differing(first, tx.Args, "study", "root", "count", "kind", "from", "profile"); name != "" {
			return effect{}, refuse(Conflict, name, "this manifest is anchored with another value")
		}
		return repeat(anchorKey(cid), placeOf(first))
	}
	if err := checkKind(tx.Args); err != nil {
		return effect{}, err
	}
	if err := checkNotErased(tx.reader, study); err != nil {
		return effect{}, err
	}
	number := anchorsSoFar(tx.reader, study) // puts a study's anchors in order: of two endorsed at once one is refused
	record := tx.Args.With(Map{
		"number":           number,
		"datasetApprovals": tx.counter(datasetApprovals),
		"time":             tx.Time,
		"sequence":         tx.Sequence,
	})
	return about(study, placeOf(record), Map{
		anchorKey(cid):                record,
		studyAnchorKey(study, number): cid,
		anchorsKey(study):             number + 1,
	}), nil
}

func confirmStored(tx *transaction) (effect, error) {
	cid := tx.Args.Text("manifestCid")
	record, err := tx.record(anchorKey(cid), "manifestCid")
	if err != nil {
		return effect{}, err
	}
	if isStored(tx.reader, cid) {
		return repeat(storedKey(cid), nil)
	}
	return about(record.Bytes("study"), nil, Map{storedKey(cid): tx.by()}), nil
}

func getAnchor(q *question) (Value, error) {
	record, err := q.record(anchorKey(q.args.Text("manifestCid")), "manifestCid")
	if err != nil {
		return nil, err
	}
	return shownAnchors(q.reader, List{record})[0], nil
}

// allAnchors is all anchors by manifest CID, so that a sweep can go on where it stopped.
func allAnchors(q *question) (Value, error) {
	after := ""
	if q.args.Has("after") {
		after = anchorKey(q.args.Text("after"))
	}
	return shownAnchors(q.reader, page(valuesOf(q.scan(anchorPrefix, after)), q.args)), nil
}

// anchorsOfStudy is by number: in the order of their commits.
func anchorsOfStudy(q *question) (Value, error) {
	study, after := q.args.Bytes("study"), ""
	if q.args.Has("after") {
		after = studyAnchorKey(study, q.args.Int("after"))
	}
	cids := page(valuesOf(q.scan(studyAnchorPrefix(study), after)), q.args)
	return shownAnchors(q.reader, q.getAll(keysOf(texts(cids), anchorKey))), nil
}

// checkAnchored is NOT_FOUND when the manifest an argument names has no anchor, INVALID for another study's.
func checkAnchored(tx *transaction, name string) error {
	record, err := tx.record(anchorKey(tx.Args.Text(name)), name)
	if err != nil {
		return err
	}
	if differing(record, tx.Args, "study") != "" {
		return refuse(Invalid, name, "anchored for another study")
	}
	return nil
}

// anchorsSoFar is how many anchors a study has: the number of its next one.
func anchorsSoFar(state reader, study []byte) int64 {
	return state.counter(anchorsKey(study))
}

// isCovered tells whether an approved request covers an anchor: by its coveredUntil, one that was made before it. Null:
// future ones, too. Of a dataset the approval's number; of named studies the number of each one's next anchor.
func isCovered(anchor, request Map) bool {
	switch {
	case request["coveredUntil"] == nil:
		return true
	case request.Has("dataset"):
		return anchor.Int("datasetApprovals") < request.Int("coveredUntil")
	}
	return anchor.Int("number") < request.Map("coveredUntil").Int(token(anchor.Bytes("study")))
}

func isStored(state reader, cid string) bool {
	return state.has(storedKey(cid))
}

func checkKind(args Map) error {
	derived := args.Text("kind") == "derived"
	if args.Has("from") != derived {
		return refuse(Invalid, "from", "derived anchors have it, original ones do not")
	}
	if args.Has("profile") && !derived {
		return refuse(Invalid, "profile", "only derived anchors have it")
	}
	return nil
}

func placeOf(record Map) Map {
	return record.Only("sequence", "time")
}

// shownAnchors is anchors and whether each is stored.
func shownAnchors(state reader, anchors List) List {
	records := items[Map](anchors)
	cids := make([]string, len(records))
	for i, record := range records {
		cids[i] = record.Text("manifestCid")
	}
	shown := make(List, len(records))
	for i, stored := range state.getAll(keysOf(cids, storedKey)) {
		shown[i] = records[i].With(Map{"stored": stored != nil})
	}
	return shown
}

func keysOf(cids []string, key func(cid string) string) []string {
	keys := make([]string, len(cids))
	for i, cid := range cids {
		keys[i] = key(cid)
	}
	return keys
}

func anchorKey(cid string) string { return anchorPrefix + cid }

func storedKey(cid string) string { return key("stored", cid) }

func anchorsKey(study []byte) string { return key("studyAnchors", token(study)) }

func studyAnchorKey(study []byte, number int64) string {
	return studyAnchorPrefix(study) + fmt.Sprintf("%010d", number)
}

func studyAnchorPrefix(study []byte) string { return key("studyAnchor", token(study), "") }
