// Package merkle verifies inclusion proofs of Merkle trees as Certificate Transparency defines them (RFC 6962 2.1).
package merkle

import (
	"bytes"
	"crypto/sha256"
	"fmt"
)

// LeafHash is the hash of a leaf whose input is data.
func LeafHash(data []byte) []byte {
	return hash([]byte{0x00}, data)
}

// VerifyInclusion checks that a leaf (by its hash) is number index of the size leaves under root (RFC 9162 2.1.3.2). It
// is an error when the index is outside the tree, the proof has another length than the tree asks for, or its digests
// lead to another root.
func VerifyInclusion(leaf []byte, index, size int64, proof [][]byte, root []byte) error {
	if index < 0 || index >= size {
		return fmt.Errorf("inclusion proof: leaf index %d is outside a tree of %d leaves", index, size)
	}
	digest, used := leaf, 0
	for position, last := index, size-1; last > 0; position, last = position>>1, last>>1 {
		if position&1 == 0 && position == last {
			continue // a last node without a sibling goes up as it is
		}
		if used == len(proof) {
			return fmt.Errorf("inclusion proof for leaf %d of %d is too short: got %d digests", index, size, used)
		}
		if position&1 == 1 {
			digest = nodeHash(proof[used], digest)
		} else {
			digest = nodeHash(digest, proof[used])
		}
		used++
	}
	if used != len(proof) {
		return fmt.Errorf("inclusion proof for leaf %d of %d: expected %d digests, got %d", index, size, used, len(proof))
	}
	if !bytes.Equal(digest, root) {
		return fmt.Errorf("inclusion proof for leaf %d of %d: expected root %x, got %x", index, size, root, digest)
	}
	return nil
}

func nodeHash(left, right []byte) []byte {
	return hash([]byte{0x01}, left, right)
}

func hash(parts ...[]byte) []byte {
	digest := sha256.New()
	for _, part := range parts {
		digest.Write(part)
	}
	return digest.Sum(nil)
}
