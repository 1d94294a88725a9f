package contract

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"reflect"
	"strings"

	"orthanc-ledger/chaincode/ipld"
)

// Value, List and Map are the values of arguments and records.
type (
	Value = ipld.Value
	List  = ipld.List
	Map   = ipld.Map
)

// Caller is who signed a transaction, as the certificate says it.
type Caller struct {
	Organisation string // MSP ID
	Assurance    string // the certificate's attribute kind: person or node
	Serial       string // of the certificate, lower-case hex
}

// Call is one transaction as its host hands it to the contract.
type Call struct {
	Function     string
	Args         Map
	Nonce        []byte // 16 bytes; part of the id of functions that give one
	Caller       Caller
	Time         int64  // the transaction's time, UTC seconds: what every rule goes by
	HostTime     int64  // the host's own clock, only compared with Time
	Sequence     int64  // the host's name for this commit, unlike any other's
	PolicySHA256 []byte // of the one policy InitPolicy may take, as DAG-CBOR
}

// Event is what a state change announces: named like its function.
type Event struct {
	Name    string
	Payload Map
}

// Applied is what a call comes to; the host writes Changes and nothing else.
//
// A repeat of an earlier call has neither changes nor an event: Result is that of the first, which was the first write
// of the key Repeats.
type Applied struct {
	Result  Value
	Changes Map
	Event   *Event
	Repeats string
}

// State is what a contract function may read: single keys, so that two peers read the same (no scans in writes).
type State interface {
	// Get is the values last committed under the keys, one for each; nil where there is none.
	Get(keys ...string) ([]Value, error)
}

// Entry is a key of the state and its value.
type Entry struct {
	Key   string
	Value Value
}

// Write is one of the values a key had, and the sequence of the commit that wrote it.
type Write struct {
	Sequence int64
	Value    Value
}

// Records is what a query may read besides.
type Records interface {
	State
	// Scan gives all keys > after that begin with the prefix, ascending by their bytes.
	Scan(prefix, after string) iter.Seq2[Entry, error]
	// History gives every write of the key, first to last.
	History(key string) iter.Seq2[Write, error]
}

// transaction is a call that passed the general checks, as a contract function sees it.
type transaction struct {
	Call
	reader
	policy Map
	role   string // owner, custodian or research: from the policy
}

// id is that of what this call makes: a hash of its content, so that nobody chooses it and a repeat is recognised.
func (tx *transaction) id() []byte {
	content := ipld.EncodeCBOR(List{tx.Function, tx.Args, tx.Caller.Organisation, tx.Nonce})
	digest := sha256.Sum256(content)
	return digest[:]
}

// by is the caller as records keep it.
func (tx *transaction) by() Map {
	return Map{
		"organisation": tx.Caller.Organisation,
		"role":         tx.role,
		"assurance":    tx.Caller.Assurance,
		"serial":       tx.Caller.Serial,
	}
}

// stamp is who and when: the end of every record of a decision.
func (tx *transaction) stamp() Map {
	return Map{"by": tx.by(), "time": tx.Time}
}

// noted is the call as a record: its arguments as given, who and when.
func (tx *transaction) noted() Map {
	return tx.Args.With(tx.stamp())
}

// own tells whether the calling organisation made a record.
func (tx *transaction) own(record Map) bool {
	return organisationOf(record) == tx.Caller.Organisation
}

// effect is what a contract function decided. repeats names the key that the first such call wrote first; then there
// are no changes. studies are those the event is about, for Audit.
type effect struct {
	result  Value
	changes Map
	studies [][]byte
	repeats string
}

// about is an effect that an event about one study tells.
func about(study []byte, result Value, changes Map) effect {
	return effect{result: result, changes: changes, studies: [][]byte{study}}
}

func repeat(key string, result Value) (effect, error) {
	return effect{result: result, repeats: key}, nil
}

// question is a query: read only, open to every member of the channel.
type question struct {
	scanner
	policy Map
	args   Map
	time   int64
}

func organisationOf(record Map) string {
	return record.Map("by").Text("organisation")
}

// differing is the first of these arguments that an earlier call's record has otherwise; "" when the call is a repeat.
func differing(first, args Map, names ...string) string {
	for _, name := range names {
		if !reflect.DeepEqual(first[name], args[name]) {
			return name
		}
	}
	return ""
}

// key joins a record's kind and what it is about.
func key(parts ...string) string {
	return strings.Join(parts, "/")
}

// token is a byte string in a key.
func token(octets []byte) string {
	return hex.EncodeToString(octets)
}

// lastToken is the byte string at the end of a key.
func lastToken(key string) []byte {
	octets, err := hex.DecodeString(lastPart(key))
	if err != nil {
		panic(fault{err})
	}
	return octets
}

func lastPart(key string) string {
	return key[strings.LastIndexByte(key, '/')+1:]
}

// texts is a list of strings.
func texts(list List) []string {
	return items[string](list)
}

// byteStrings is a list of byte strings.
func byteStrings(list List) [][]byte {
	return items[[]byte](list)
}

func items[T Value](list List) []T {
	typed := make([]T, len(list))
	for i, item := range list {
		value, fits := item.(T)
		if !fits {
			panic(fault{fmt.Errorf("a list's item: expected %T, got %T", value, item)})
		}
		typed[i] = value
	}
	return typed
}
