package contract

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Tampering: an instance without a healthy copy is flagged by either party and resolved by both; repairs are noted.

const flags = "flag"

func flagTampered(tx *transaction) (effect, error) {
	if err := checkAnchored(tx, "manifestCid"); err != nil {
		return effect{}, err
	}
	study, number := tx.Args.Bytes("study"), tx.Args.Int("n")
	flag := key(flags, flagPlace(tx.Args, number))
	if first := tx.find(flag); first != nil {
		if differing(first, tx.Args, slices.Collect(maps.Keys(tx.Args))...) != "" {
			return effect{}, refuse(Conflict, "n", "this flag exists with other content")
		}
		return repeat(flag, first.Only("version"))
	}
	if number > 0 && !tx.has(key(flags, flagPlace(tx.Args, number-1))) {
		return effect{}, refuse(Invalid, "n", "flags of an instance count from 0, and there is none %d", number-1)
	}
	if err := checkNotErased(tx.reader, study); err != nil {
		return effect{}, err
	}
	version, change := raised(tx.reader, study)
	result := Map{"version": version}
	return about(study, result, change.With(Map{flag: tx.noted().With(result)})), nil
}

func resolve(tx *transaction) (effect, error) {
	study, cid := tx.Args.Bytes("study"), tx.Args.Text("manifestCid")
	place := flagPlace(tx.Args, tx.Args.Int("n"))
	flag, err := tx.record(key(flags, place), "n")
	if err != nil {
		return effect{}, err
	}
	words := key("resolution", place, cid)
	if repeated, said := repeatedWord(tx, words); said {
		return repeated, nil
	}
	if err := checkNotErased(tx.reader, study); err != nil {
		return effect{}, err
	}
	resolved := key("resolved", place)
	if tx.has(resolved) {
		return effect{}, refuse(WrongState, "resolved", "both agreed on another manifest")
	}
	if err := checkAnchored(tx, "manifestCid"); err != nil {
		return effect{}, err
	}
	if cid != flag["manifestCid"] && cid != currentManifest(tx.reader, study, tx.Args.Bytes("instance")) {
		return effect{}, refuse(Invalid, "manifestCid", "neither the flagged anchor nor the instance's current record")
	}
	return wordOfBoth(tx, words, study, "flagged", "resolved", func(version int64) Map {
		return Map{resolved: Map{"manifestCid": cid, "version": version, "time": tx.Time}}
	})
}

func reportRepair(tx *transaction) (effect, error) {
	study, id := tx.Args.Bytes("study"), tx.id()
	repair, result := key("repair", token(study), token(id)), Map{"id": id}
	if tx.has(repair) {
		return repeat(repair, result)
	}
	if tx.Args.Map("node")["organisation"] != tx.Caller.Organisation {
		return effect{}, refuse(NotPermitted, "node", "not a node of the reporting organisation")
	}
	return about(study, result, Map{repair: tx.noted()}), nil
}

// flagsOf is the study's standing flags, and the resolved ones with the manifest that both agreed on.
func flagsOf(q *question, study []byte) (standing, resolved List) {
	standing, resolved = List{}, List{}
	for place, flag := range q.scanRecords(key(flags, token(study), ""), "") {
		row := flag.Only("instance", "manifestCid", "n")
		agreed := q.find(strings.Replace(place, flags, "resolved", 1))
		if agreed == nil {
			standing = append(standing, row)
			continue
		}
		resolved = append(resolved, row.With(agreed.Only("manifestCid")))
	}
	return standing, resolved
}

func flagPlace(args Map, number int64) string {
	return key(token(args.Bytes("study")), token(args.Bytes("instance")), fmt.Sprintf("%06d", number))
}
