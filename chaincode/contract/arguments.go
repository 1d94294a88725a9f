package contract

import (
	"cmp"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
)

const (
	maxCount      = 100_000
	maxVersion    = 1 << 31
	maxProof      = 17 // the longest path in a tree of maxCount leaves
	maxStudies    = 256
	maxSOPClasses = 256
	maxAnchors    = 1024
	maxInstances  = 1024
	maxReleases   = 1024
	maxDays       = 3650
	maxTime       = 1 << 40
	maxUID        = 64 // PS3.5 9.1
)

var (
	// CIDv1, dag-cbor, sha2-256, 32 bytes, base32: the four bytes 01 71 12 20 and two unused bits at the end are fixed.
	manifestCID = regexp.MustCompile(`^bafyrei[a-h][a-z2-7]{50}[aeimquy4]$`)
	mspID       = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,63}$`)
	aeTitle     = regexp.MustCompile(`^[ -\[\]-~]{1,16}$`)                    // PS3.5 6.2 AE: no backslash
	uid         = regexp.MustCompile(`^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+$`) // PS3.5 9.1
	stateKey    = regexp.MustCompile(`^[!-~]{1,400}$`)
	serial      = regexp.MustCompile(`^[1-9a-f][0-9a-f]{0,39}$`) // RFC 5280 4.1.2.2: positive, at most 20 octets
	tag         = regexp.MustCompile(`^\([0-9A-F]{4},[0-9A-F]{4}\)$`)
)

// check tells whether a value is of one form.
type check func(Value) bool

// argument is the form of one argument.
type argument struct {
	name     string
	check    check
	optional bool
}

// schema is the arguments of a function, in the order in which they are checked.
type schema []argument

func required(name string, check check) argument { return argument{name, check, false} }

func optional(name string, check check) argument { return argument{name, check, true} }

// and is the schema with more arguments behind it.
func (s schema) and(more ...argument) schema {
	return append(slices.Clone(s), more...)
}

// refusal is INVALID with the name of the first argument that is unknown (in the order of DAG-CBOR), missing or
// malformed; nil when there is none.
func (s schema) refusal(args Map) error {
	for _, name := range slices.SortedFunc(maps.Keys(args), dagCBOROrder) {
		if !s.knows(name) {
			return refuse(Invalid, name, "unknown argument")
		}
	}
	for _, argument := range s {
		value, given := args[argument.name]
		switch {
		case !given && !argument.optional:
			return refuse(Invalid, argument.name, "missing argument")
		case given && !argument.check(value):
			return refuse(Invalid, argument.name, "wrong type, length, range or code")
		}
	}
	return nil
}

func (s schema) knows(name string) bool {
	return slices.ContainsFunc(s, func(known argument) bool { return known.name == name })
}

func dagCBOROrder(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

func octets(length int) check {
	return func(value Value) bool {
		octets, fits := value.([]byte)
		return fits && len(octets) == length
	}
}

func integer(least, most int64) check {
	return func(value Value) bool {
		number, fits := value.(int64)
		return fits && least <= number && number <= most
	}
}

func countFrom(least int64) check { return integer(least, maxCount) }

func code(known []string) check {
	return func(value Value) bool {
		text, fits := value.(string)
		return fits && slices.Contains(known, text)
	}
}

func matching(form *regexp.Regexp) check {
	return func(value Value) bool {
		text, fits := value.(string)
		return fits && form.MatchString(text)
	}
}

// unique is a list of different values of one form.
func unique(item check, least, most int) check {
	return func(value Value) bool {
		list, fits := value.(List)
		if !fits || len(list) < least || len(list) > most {
			return false
		}
		seen := make(map[Value]bool, len(list))
		for _, value := range list {
			if !item(value) {
				return false
			}
			seen[hashable(value)] = true
		}
		return len(seen) == len(list)
	}
}

// hashable is a string, integer or byte string as a map's key; no form admits both strings and byte strings.
func hashable(value Value) Value {
	if octets, is := value.([]byte); is {
		return string(octets)
	}
	return value
}

func isNothing(value Value) bool { return value == nil }

func isTrue(value Value) bool { return value == true }

func isBoolean(value Value) bool {
	_, fits := value.(bool)
	return fits
}

func isMap(value Value) bool {
	_, fits := value.(Map)
	return fits
}

func either(one, other check) check {
	return func(value Value) bool { return one(value) || other(value) }
}

// isAETitle: spaces at the ends of an AE title mean nothing (PS3.5 6.2).
func isAETitle(value Value) bool {
	return matching(aeTitle)(value) && strings.Trim(value.(string), " ") == value
}

func isSOPClass(value Value) bool {
	return matching(uid)(value) && len(value.(string)) <= maxUID
}

// isNode takes a node's id: {organisation, aeTitle}.
func isNode(value Value) bool {
	node, fits := value.(Map)
	return fits && len(node) == 2 && isMSPID(node["organisation"]) && isAETitle(node["aeTitle"])
}

// isProof takes a study token's inclusion in a dataset: {index, path}, the path as RFC 6962 2.1.1.
func isProof(value Value) bool {
	proof, fits := value.(Map)
	if !fits || len(proof) != 2 || !integer(0, maxCount-1)(proof["index"]) {
		return false
	}
	path, fits := proof["path"].(List)
	return fits && len(path) <= maxProof && !slices.ContainsFunc(path, func(node Value) bool { return !isDigest(node) })
}

var (
	isDigest       = octets(32)
	isRecordID     = octets(32)
	isStudy        = octets(16)
	isDataset      = octets(16)
	isInstance     = octets(32)
	isManifestCID  = matching(manifestCID)
	isMSPID        = matching(mspID)
	isSerial       = matching(serial)
	isStateKey     = matching(stateKey)
	isTagOrFrame   = either(matching(tag), countFrom(0)) // (GGGG,EEEE), or a frame's number from 0
	isTime         = integer(0, maxTime)
	isCount        = countFrom(1)
	isVersion      = integer(1, maxVersion)
	isSequence     = integer(0, 1<<53)
	isAnySequence  = integer(0, math.MaxInt64)
	isDigestOrNull = either(isNothing, isDigest)
	aboutStudy     = schema{required("study", isStudy)}
	aboutInstance  = aboutStudy.and(required("instance", isInstance))
	aboutRecord    = schema{required("id", isRecordID)}
	aboutManifest  = schema{required("manifestCid", isManifestCID)}
	aboutNode      = schema{required("node", isNode)}
	aboutDataset   = schema{required("id", isDataset), required("version", isVersion)}
)
