package ipld

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

var dagCBOR = func() cbor.EncMode {
	mode, err := cbor.EncOptions{Sort: cbor.SortLengthFirst}.EncMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return mode
}()

// EncodeCBOR is the value's DAG-CBOR: shortest forms, map keys sorted by length, then by bytes. What ids and the
// policy's digest are hashes of.
func EncodeCBOR(value Value) []byte {
	encoded, err := dagCBOR.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("ipld: no value: %v", err))
	}
	return encoded
}
