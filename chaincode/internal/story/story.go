// Package story reads the vectors of the contract, tests/vectors/contract, for the tests of this module. Their README
// says what each field means.
package story

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"orthanc-ledger/chaincode/ipld"
)

// Story is a list of steps on a ledger.
type Story struct {
	Name   string
	Start  string // the story this one goes on from; "": the ledger is empty
	Policy *Value
	Steps  []Step
	State  Value
}

// Step is a call, or a query.
type Step struct {
	At        int64
	HostAt    *int64 `json:"host_at"`
	By        string
	Assurance string
	Serial    string
	Function  string
	Query     string
	Args      Value
	Nonce     *Value
	Then      Value
}

// Value is an IPLD value in JSON of any layout.
type Value struct {
	ipld.Value
}

// UnmarshalJSON reads DAG-JSON that need not be canonical.
func (v *Value) UnmarshalJSON(text []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var parsed any
	if err := decoder.Decode(&parsed); err != nil {
		return err
	}
	var canonical bytes.Buffer
	encoder := json.NewEncoder(&canonical)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(parsed); err != nil {
		return err
	}
	value, err := ipld.DecodeJSON(bytes.TrimSpace(canonical.Bytes()))
	v.Value = value
	return err
}

// Map is the value as a map.
func (v Value) Map() ipld.Map {
	return v.Value.(ipld.Map)
}

// All is every story by its name.
func All(t testing.TB) map[string]Story {
	files, err := filepath.Glob(filepath.Join("..", "..", "tests", "vectors", "contract", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors in tests/vectors/contract: %v", err)
	}
	all := map[string]Story{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var stories []Story
		if err := json.Unmarshal(text, &stories); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, story := range stories {
			all[story.Name] = story
		}
	}
	return all
}

// NonceOf is the step's nonce.
func NonceOf(step Step) []byte {
	if step.Nonce == nil {
		return make([]byte, 16)
	}
	return step.Nonce.Value.([]byte)
}

// Same demands that a value is the vectors', and tells the first place where it is not.
func Same(t testing.TB, came, expected ipld.Value, where string) {
	t.Helper()
	place, a, b := differing(where, came, expected)
	if got, want := ipld.EncodeJSON(a), ipld.EncodeJSON(b); !bytes.Equal(got, want) {
		t.Errorf("%s\n got %s\nwant %s", place, got, want)
	}
}

// differing is the innermost place under which two values differ, and what is there.
func differing(place string, came, expected ipld.Value) (string, ipld.Value, ipld.Value) {
	a, isMap := came.(ipld.Map)
	b, areMaps := expected.(ipld.Map)
	if !isMap || !areMaps || !maps.EqualFunc(a, b, func(ipld.Value, ipld.Value) bool { return true }) {
		return place, came, expected
	}
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if !reflect.DeepEqual(a[name], b[name]) {
			return differing(place+" › "+name, a[name], b[name])
		}
	}
	return place, nil, nil
}
