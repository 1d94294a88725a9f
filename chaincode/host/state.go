package host

import (
	"fmt"
	"iter"
	"slices"

	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/queryresult"

	"orthanc-ledger/chaincode/contract"
	"orthanc-ledger/chaincode/ipld"
)

// pageSize is how many keys a scan asks the peer for at once: they come in one message. A peer cuts a range that is not
// asked for in pages at its totalQueryLimit without a word.
const pageSize = contract.MaxRows

// worldState is the channel's state as the contract reads it: values as canonical DAG-JSON.
type worldState struct {
	stub shim.ChaincodeStubInterface
}

// Get is the values last committed under the keys; nil where there is none. A peer that can takes one message for all.
func (s worldState) Get(keys ...string) ([]contract.Value, error) {
	texts, err := s.stub.GetMultipleStates(keys...)
	if err != nil {
		return nil, err
	}
	values := make([]contract.Value, len(texts))
	for i, text := range texts {
		if text == nil {
			continue
		}
		if values[i], err = decodeRecord(keys[i], text); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// Scan gives all keys > after that begin with the prefix, ascending by their bytes.
func (s worldState) Scan(prefix, after string) iter.Seq2[contract.Entry, error] {
	return func(yield func(contract.Entry, error) bool) {
		for row, err := range s.rows(max(prefix, after)+"\x00", behind(prefix)) {
			if err != nil {
				yield(contract.Entry{}, err)
				return
			}
			value, err := decodeRecord(row.Key, row.Value)
			if !yield(contract.Entry{Key: row.Key, Value: value}, err) || err != nil {
				return
			}
		}
	}
}

// History gives every write of the key, first to last; the peer gives the last one first.
func (s worldState) History(key string) iter.Seq2[contract.Write, error] {
	return func(yield func(contract.Write, error) bool) {
		modifications, err := s.modifications(key)
		if err != nil {
			yield(contract.Write{}, err)
			return
		}
		for _, modification := range slices.Backward(modifications) {
			write, err := writeOf(key, modification)
			if !yield(write, err) || err != nil {
				return
			}
		}
	}
}

// rows is the keys from start to end (exclusive), page by page.
func (s worldState) rows(start, end string) iter.Seq2[*queryresult.KV, error] {
	return func(yield func(*queryresult.KV, error) bool) {
		for bookmark := start; bookmark != ""; {
			page, metadata, err := s.stub.GetStateByRangeWithPagination(start, end, pageSize, bookmark)
			if err != nil {
				yield(nil, err)
				return
			}
			rows, err := collected(page)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, row := range rows {
				if !yield(row, nil) {
					return
				}
			}
			bookmark = metadata.GetBookmark()
		}
	}
}

func (s worldState) modifications(key string) ([]*queryresult.KeyModification, error) {
	history, err := s.stub.GetHistoryForKey(key)
	if err != nil {
		return nil, err
	}
	return collected(history)
}

// iterator is either of the peer's iterators.
type iterator[T any] interface {
	shim.CommonIteratorInterface
	Next() (T, error)
}

// collected is what an iterator gives; it is closed.
func collected[T any](rows iterator[T]) ([]T, error) {
	defer rows.Close()
	var all []T
	for rows.HasNext() {
		row, err := rows.Next()
		if err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, rows.Close()
}

func writeOf(key string, modification *queryresult.KeyModification) (contract.Write, error) {
	sequence, err := sequenceOf(modification.GetTimestamp().AsTime().UnixMilli(), modification.GetTxId())
	if err != nil {
		return contract.Write{}, err
	}
	value, err := decodeRecord(key, modification.GetValue())
	return contract.Write{Sequence: sequence, Value: value}, err
}

func decodeRecord(key string, text []byte) (contract.Value, error) {
	value, err := ipld.DecodeJSON(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return value, nil
}

// behind is the first key behind all that begin with the prefix, which ends in an ASCII character.
func behind(prefix string) string {
	last := len(prefix) - 1
	return prefix[:last] + string(prefix[last]+1)
}
