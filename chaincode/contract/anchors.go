package contract

import "fmt"

// Anchors: which manifests there are, of which study, and which of them the custodian stores.

const (
	anchorPrefix = "anchor/"
	approvalsKey = "approvals"
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
	if err := notErased(tx.reader, study); err != nil {
		return effect{}, err
	}
	// Reading the study's counter puts its anchors in order: of two that are endorsed at once one is refused.
	number := tx.counter(anchorsKey(study))
	record := tx.Args.With(Map{
		"number":    number,
		"approvals": tx.counter(approvalsKey),
		"time":      tx.Time,
		"sequence":  tx.Sequence,
	})
	return about(study, placeOf(record), Map{
		anchorKey(cid): record,
		studyAnchorPrefix(study) + fmt.Sprintf("%010d", number): cid,
		anchorsKey(study): number + 1,
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
	return shownAnchor(q.reader, record), nil
}

// allAnchors is all anchors by manifest CID, so that a sweep can go on where it stopped.
func allAnchors(q *question) (Value, error) {
	start := ""
	if q.args.Has("from") {
		start = anchorKey(q.args.Text("from"))
	}
	return page(func(yield func(Value) bool) {
		for key, value := range q.scan(anchorPrefix, start) {
			if !yield(shownAnchor(q.reader, asRecord(key, value))) {
				return
			}
		}
	}, q.args), nil
}

// anchorsOfStudy is by number: in the order of their commits.
func anchorsOfStudy(q *question) (Value, error) {
	return page(func(yield func(Value) bool) {
		for place, cid := range q.scan(studyAnchorPrefix(q.args.Bytes("study")), "") {
			record := q.find(anchorKey(Map{place: cid}.Text(place)))
			if !yield(shownAnchor(q.reader, record)) {
				return
			}
		}
	}, q.args), nil
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

// approvalsRaised is the number of the next approval that covers only what was anchored before it, from 1, and the
// change that makes it so.
func approvalsRaised(state reader) (int64, Map) {
	count := state.counter(approvalsKey) + 1
	return count, Map{approvalsKey: count}
}

// isCovered tells whether an approval covers an anchor: made before it, or the approval is for future ones too (null).
func isCovered(anchor Map, request Map) bool {
	return request["coveredUntil"] == nil || anchor.Int("approvals") < request.Int("coveredUntil")
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

func shownAnchor(state reader, record Map) Map {
	return record.With(Map{"stored": isStored(state, record.Text("manifestCid"))})
}

func anchorKey(cid string) string { return anchorPrefix + cid }

func storedKey(cid string) string { return key("stored", cid) }

func anchorsKey(study []byte) string { return key("studyAnchors", token(study)) }

func studyAnchorPrefix(study []byte) string { return key("studyAnchor", token(study), "") }
