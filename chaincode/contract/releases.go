package contract

import (
	"bytes"
	"slices"
)

// Releases: the one decision whether a research node may have a study's objects now.

// logRelease is the decision. A lease: objects may start to leave until leaseEnd (exclusive), not a second longer.
func logRelease(tx *transaction) (effect, error) {
	id := tx.id()
	if first := tx.find(releaseKey(id)); first != nil {
		return repeat(releaseKey(id), first.Only("leaseEnd").With(Map{"release": id}))
	}
	request, err := findRequest(tx, tx.Args.Bytes("request"), "request")
	if err != nil {
		return effect{}, err
	}
	for _, check := range []func(*transaction, Map) error{checkRequest, checkStudy, checkAnchors, checkRenewed} {
		if err := check(tx, request); err != nil {
			return effect{}, err
		}
	}
	lease := Map{"leaseEnd": min(tx.Time+tx.policy.Int("lease_s"), request.Int("until"))}
	record := tx.noted().With(lease)
	return about(tx.Args.Bytes("study"), lease.With(Map{"release": id}), Map{releaseKey(id): record}), nil
}

// findRelease is the release that an argument names. The error is NOT_FOUND.
func findRelease(tx *transaction, release []byte, argument string) (Map, error) {
	return tx.record(releaseKey(release), argument)
}

func checkRequest(tx *transaction, request Map) error {
	if request["until"] != nil && tx.Time >= request.Int("until") {
		return refuse(Expired, "until", "approved until %d, now is %d", request["until"], tx.Time)
	}
	if state := request.Text("state"); state != "approved" {
		return refuse(WrongState, state, "")
	}
	if differing(request, tx.Args, "node") != "" {
		return refuse(NotPermitted, "node", "not the request's node")
	}
	return checkStands(tx, request)
}

func checkStudy(tx *transaction, request Map) error {
	study := tx.Args.Bytes("study")
	if tx.Args.Has("proof") != request.Has("dataset") {
		return refuse(Invalid, "proof", "a request on a dataset needs one, one on named studies none")
	}
	if !covers(tx.reader, request, study, tx.Args) {
		return refuse(NotPermitted, "study", "neither named in the request nor proven to be in its dataset")
	}
	if erasure := erasureOf(tx.reader, study); erasure != "none" {
		return refuse(WrongState, erasure, "")
	}
	if current := standing(tx.reader, study); tx.Args.Int("standingVersion") != current {
		return refuse(WrongState, "standingVersion", "current is %d: ask StandingOf again", current)
	}
	return nil
}

// covers tells whether a request is on a study: names it, or the arguments' proof leads to its dataset.
func covers(state reader, request Map, study []byte, args Map) bool {
	if request.Has("dataset") {
		return args.Has("proof") && isProven(state, request, study, args.Map("proof"))
	}
	return slices.ContainsFunc(namedStudies(request), func(named []byte) bool { return bytes.Equal(named, study) })
}

func checkAnchors(tx *transaction, request Map) error {
	cids := texts(tx.Args.List("anchors"))
	records := tx.getAll(keysOf(cids, anchorKey))
	stored := records // as good as stored, where the policy does not ask for it
	if tx.policy.Bool("require_stored") {
		stored = tx.getAll(keysOf(cids, storedKey))
	}
	for i, cid := range cids {
		if records[i] == nil {
			return refuse(NotFound, "anchors", "no record %s", anchorKey(cid))
		}
		record := asRecord(anchorKey(cid), records[i])
		switch {
		case differing(record, tx.Args, "study") != "":
			return refuse(Invalid, "anchors", "%s is anchored for another study", cid)
		case !isCovered(record, request):
			return refuse(WrongState, "anchors", "%s was anchored after the approval", cid)
		case stored[i] == nil:
			return refuse(WrongState, "stored", "%s is not confirmed as stored", cid)
		}
	}
	return nil
}

func checkRenewed(tx *transaction, _ Map) error {
	if !tx.Args.Has("renews") {
		return nil
	}
	renewed, err := findRelease(tx, tx.Args.Bytes("renews"), "renews")
	if err != nil {
		return err
	}
	if differing(renewed, tx.Args, "request", "study", "node") != "" || !tx.own(renewed) {
		return refuse(Invalid, "renews", "a release of another request, study, node or organisation")
	}
	return nil
}

func releaseKey(release []byte) string {
	return key("release", token(release))
}
