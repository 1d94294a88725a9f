package merkle_test

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"orthanc-ledger/chaincode/merkle"
)

// root and path are RFC 6962 2.1 and 2.1.1, word by word.
func root(leaves [][]byte) []byte {
	if len(leaves) == 1 {
		digest := sha256.Sum256(append([]byte{0}, leaves[0]...))
		return digest[:]
	}
	k := split(len(leaves))
	digest := sha256.Sum256(slices.Concat([]byte{1}, root(leaves[:k]), root(leaves[k:])))
	return digest[:]
}

func path(index int, leaves [][]byte) [][]byte {
	if len(leaves) == 1 {
		return nil
	}
	k := split(len(leaves))
	if index < k {
		return append(path(index, leaves[:k]), root(leaves[k:]))
	}
	return append(path(index-k, leaves[k:]), root(leaves[:k]))
}

// split is the largest power of two that is less than n.
func split(n int) int {
	k := 1
	for 2*k < n {
		k *= 2
	}
	return k
}

func leavesOf(size int) [][]byte {
	leaves := make([][]byte, size)
	for i := range leaves {
		leaves[i] = fmt.Append(nil, "leaf ", i)
	}
	return leaves
}

func TestEveryLeafOfEveryTreeIsProven(t *testing.T) {
	for size := 1; size <= 33; size++ {
		leaves := leavesOf(size)
		for index, leaf := range leaves {
			err := merkle.VerifyInclusion(merkle.LeafHash(leaf), int64(index), int64(size), path(index, leaves), root(leaves))
			if err != nil {
				t.Errorf("leaf %d of %d: %v", index, size, err)
			}
		}
	}
}

func TestNothingElseIsProven(t *testing.T) {
	leaves := leavesOf(11)
	leaf, proof, top := merkle.LeafHash(leaves[5]), path(5, leaves), root(leaves)
	children := slices.Concat(merkle.LeafHash(leaves[4]), leaf)
	flipped := slices.Clone(proof)
	flipped[2] = root(leaves[:1])
	for name, err := range map[string]error{
		"another leaf":         merkle.VerifyInclusion(merkle.LeafHash(leaves[4]), 5, 11, proof, top),
		"a node as a leaf":     merkle.VerifyInclusion(merkle.LeafHash(children), 2, 6, proof[1:], top),
		"another index":        merkle.VerifyInclusion(leaf, 4, 11, proof, top),
		"an index behind":      merkle.VerifyInclusion(leaf, 11, 11, proof, top),
		"an index before":      merkle.VerifyInclusion(leaf, -1, 11, proof, top),
		"an empty tree":        merkle.VerifyInclusion(leaf, 0, 0, nil, top),
		"a smaller tree":       merkle.VerifyInclusion(leaf, 5, 6, proof, top),
		"a short proof":        merkle.VerifyInclusion(leaf, 5, 11, proof[:3], top),
		"a long proof":         merkle.VerifyInclusion(leaf, 5, 11, append(slices.Clone(proof), top), top),
		"another digest in it": merkle.VerifyInclusion(leaf, 5, 11, flipped, top),
		"another root":         merkle.VerifyInclusion(leaf, 5, 11, proof, leaf),
	} {
		if err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
