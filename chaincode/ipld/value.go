// Package ipld holds what the ledger's arguments and records are made of: values of the IPLD data model, and their
// canonical texts in DAG-JSON and DAG-CBOR.
package ipld

import (
	"fmt"
	"maps"
)

// Value is nil, a bool, an int64, a string, []byte, a List or a Map; there are no fractions and no links.
type Value = any

// List is a list of values.
type List = []Value

// Map is a map of values by name. Its readers panic with Mistyped when the name is absent or of another type.
type Map map[string]Value

// Mistyped is what a Map's readers panic with: the map is not of the form it is read by.
type Mistyped struct {
	Name string
	Want string
	Got  string
}

func (m Mistyped) Error() string {
	return fmt.Sprintf("%s: expected %s, got %s", m.Name, m.Want, m.Got)
}

// Has tells whether the name is there, null or not.
func (m Map) Has(name string) bool {
	_, there := m[name]
	return there
}

// Text is the string under a name.
func (m Map) Text(name string) string { return read[string](m, name) }

// Int is the integer under a name.
func (m Map) Int(name string) int64 { return read[int64](m, name) }

// Bool is the boolean under a name.
func (m Map) Bool(name string) bool { return read[bool](m, name) }

// Bytes is the byte string under a name.
func (m Map) Bytes(name string) []byte { return read[[]byte](m, name) }

// List is the list under a name.
func (m Map) List(name string) List { return read[List](m, name) }

// Map is the map under a name.
func (m Map) Map(name string) Map { return read[Map](m, name) }

// With is a copy of the map in which the changes are made.
func (m Map) With(changes Map) Map {
	copied := make(Map, len(m)+len(changes))
	maps.Copy(copied, m)
	maps.Copy(copied, changes)
	return copied
}

// Only is a copy of the map with these names, which must be there.
func (m Map) Only(names ...string) Map {
	picked := Map{}
	for _, name := range names {
		if !m.Has(name) {
			panic(Mistyped{name, "a value", "none"})
		}
		picked[name] = m[name]
	}
	return picked
}

func read[T Value](m Map, name string) T {
	value, fits := m[name].(T)
	if !fits {
		panic(Mistyped{name, fmt.Sprintf("%T", value), fmt.Sprintf("%T", m[name])})
	}
	return value
}
