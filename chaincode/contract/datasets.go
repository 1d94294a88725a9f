package contract

import (
	"fmt"

	"orthanc-ledger/chaincode/merkle"
)

// Datasets: a version is the root over a sorted list of study tokens. The lists themselves live off the ledger.

const datasetPrefix = "dataset/"

// registerDataset registers a dataset's next version; it belongs to the organisation that registered the first.
func registerDataset(tx *transaction) (effect, error) {
	dataset, version := tx.Args.Bytes("id"), tx.Args.Int("version")
	if head := tx.find(datasetKey(dataset, 1)); head != nil && !tx.own(head) {
		return effect{}, refuse(NotPermitted, "id", "a dataset of another organisation")
	}
	key := datasetKey(dataset, version)
	if first := tx.find(key); first != nil {
		if name := differing(first, tx.Args, "root", "count", "descriptorDigest", "duo"); name != "" {
			return effect{}, refuse(Conflict, name, "this version is registered with another value")
		}
		return repeat(key, nil)
	}
	if version > 1 && !tx.has(datasetKey(dataset, version-1)) {
		return effect{}, refuse(Invalid, "version", "versions count from 1, and there is none %d", version-1)
	}
	return effect{changes: Map{key: tx.noted()}}, nil
}

// withdrawDataset is final for this version: what was approved on it ends.
func withdrawDataset(tx *transaction) (effect, error) {
	dataset, version := tx.Args.Bytes("id"), tx.Args.Int("version")
	if _, err := tx.record(datasetKey(dataset, version), "id"); err != nil {
		return effect{}, err
	}
	key := datasetWithdrawalKey(dataset, version)
	if tx.has(key) {
		return repeat(key, nil)
	}
	return effect{changes: Map{key: tx.stamp()}}, nil
}

// allDatasets is all versions of all datasets, by id and version.
func allDatasets(q *question) (Value, error) {
	return page(func(yield func(Value) bool) {
		for _, record := range q.scanRecords(datasetPrefix, "") {
			if !yield(shownDataset(q.reader, record)) {
				return
			}
		}
	}, q.args), nil
}

// findDataset is the dataset version that the call's dataset and version name. The error is NOT_FOUND dataset.
func findDataset(tx *transaction) (Map, error) {
	return tx.record(datasetKey(tx.Args.Bytes("dataset"), tx.Args.Int("version")), "dataset")
}

// datasetStands tells whether the dataset version that a request is on was not withdrawn; true for named studies.
func datasetStands(state reader, request Map) bool {
	return !request.Has("dataset") ||
		!state.has(datasetWithdrawalKey(request.Bytes("dataset"), request.Int("version")))
}

// isProven tells whether the proof shows that a study belongs to the dataset version a request is on.
func isProven(state reader, request Map, study []byte, proof Map) bool {
	record := state.find(datasetKey(request.Bytes("dataset"), request.Int("version")))
	if record == nil {
		return false
	}
	index, path := proof.Int("index"), byteStrings(proof.List("path"))
	return merkle.VerifyInclusion(merkle.LeafHash(study), index, record.Int("count"), path, record.Bytes("root")) == nil
}

func shownDataset(state reader, record Map) Map {
	shown := "registered"
	if state.has(datasetWithdrawalKey(record.Bytes("id"), record.Int("version"))) {
		shown = "withdrawn"
	}
	return record.With(Map{"state": shown})
}

func datasetKey(dataset []byte, version int64) string {
	return fmt.Sprintf("%s%x/%010d", datasetPrefix, dataset, version)
}

func datasetWithdrawalKey(dataset []byte, version int64) string {
	return fmt.Sprintf("datasetWithdrawal/%x/%010d", dataset, version)
}
