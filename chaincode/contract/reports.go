package contract

import (
	"fmt"
	"maps"
	"slices"
)

// What became of releases and refusals: the releasing party's word, and the recipient's own. None of it blocks.

func logOutcome(tx *transaction) (effect, error) {
	id := tx.Args.Bytes("release")
	release, err := findRelease(tx, id, "release")
	if err != nil {
		return effect{}, err
	}
	if !tx.own(release) {
		return effect{}, refuse(NotPermitted, "release", "logged by another organisation")
	}
	if released := release.Int("count"); tx.Args.Int("sent")+tx.Args.Int("withheld") > released {
		return effect{}, refuse(Invalid, "sent", "with withheld more than the %d released", released)
	}
	return toldOnce(tx, key("outcome", token(id)), release, WrongState, "outcome")
}

func logRetrieval(tx *transaction) (effect, error) {
	id := tx.Args.Bytes("release")
	release, _, err := checkOwnRelease(tx, id, "release")
	if err != nil {
		return effect{}, err
	}
	return toldOnce(tx, key("retrieval", token(id)), release, Conflict, "outcome")
}

func reportTamper(tx *transaction) (effect, error) {
	id := tx.Args.Bytes("release")
	release, _, err := checkOwnRelease(tx, id, "release")
	if err != nil {
		return effect{}, err
	}
	report := key("tamperReport", token(id), token(tx.Args.Bytes("instance")))
	return toldOnce(tx, report, release, Conflict, "observed")
}

func logDenials(tx *transaction) (effect, error) {
	node, seq := tx.Args.Map("reportingNode"), tx.Args.Int("seq")
	if node["organisation"] != tx.Caller.Organisation {
		return effect{}, refuse(NotPermitted, "reportingNode", "not a node of the reporting organisation")
	}
	if tx.Args.Has("peer") == tx.Args.Has("unregistered") {
		return effect{}, refuse(Invalid, "peer", "expected either peer or unregistered")
	}
	if tx.Args.Has("peer") && nodeHead(tx.reader, tx.Args.Map("peer")) == nil {
		return effect{}, refuse(NotFound, "peer", "not registered: report it as unregistered")
	}
	denials := key("denials", nodePath(node), fmt.Sprintf("%020d", seq))
	first := tx.find(denials)
	if first != nil && differing(first, tx.Args, "peer", "unregistered", "reason", "count") == "" {
		return repeat(denials, nil)
	}
	lastKey := key("denialsSeq", nodePath(node))
	if tx.has(lastKey) && seq <= tx.counter(lastKey) {
		return effect{}, refuse(Conflict, "seq", "the last one was %d", tx.counter(lastKey))
	}
	return effect{changes: Map{denials: tx.noted(), lastKey: seq}}, nil
}

// checkOwnRelease is a release to the calling organisation, and its request. The error is NOT_FOUND, or NOT_PERMITTED
// for another's.
func checkOwnRelease(tx *transaction, id []byte, argument string) (release, request Map, err error) {
	if release, err = findRelease(tx, id, argument); err != nil {
		return nil, nil, err
	}
	if request, err = findRequest(tx, release.Bytes("request"), argument); err != nil {
		return nil, nil, err
	}
	if !tx.own(request) {
		return nil, nil, refuse(NotPermitted, argument, "released to another organisation")
	}
	return release, request, nil
}

// toldOnce is a note that is written once; the same again is a repeat, another one is refused with this code and field.
func toldOnce(tx *transaction, key string, release Map, otherwise Code, field string) (effect, error) {
	first := tx.find(key)
	if first == nil {
		return about(release.Bytes("study"), nil, Map{key: tx.noted()}), nil
	}
	if differing(first, tx.Args, slices.Collect(maps.Keys(tx.Args))...) != "" {
		return effect{}, refuse(otherwise, field, "told otherwise before")
	}
	return repeat(key, nil)
}
