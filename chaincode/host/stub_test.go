package host_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/queryresult"
	"github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orthanc-ledger/chaincode/contract"
	"orthanc-ledger/chaincode/host"
)

// channel is a peer's ledger of one channel, in memory.
type channel struct {
	rows     map[string][]modification // every write of every key
	commits  int
	reads    int   // keys that the last proposal read
	pageMost int32 // rows of a range that the peer gives at once, whatever was asked for
}

type modification struct {
	value []byte
	txID  string
	time  *timestamppb.Timestamp
}

func newChannel() *channel {
	return &channel{rows: map[string][]modification{}, pageMost: 3}
}

func (c *channel) copied() *channel {
	rows := map[string][]modification{}
	for key, list := range c.rows {
		rows[key] = slices.Clone(list)
	}
	return &channel{rows: rows, commits: c.commits, pageMost: c.pageMost}
}

func (c *channel) latest(key string) []byte {
	list := c.rows[key]
	if len(list) == 0 {
		return nil
	}
	return list[len(list)-1].value
}

// proposal is what a client proposes.
type proposal struct {
	creator []byte
	at      time.Time
	txID    string // "": one that no other has
	args    []string
}

// stub is the peer's side of one proposal. What it does not define, no chaincode of ours may use: it would crash.
type stub struct {
	shim.ChaincodeStubInterface
	proposal
	channel *channel
	query   bool // only queries may scan
	writes  map[string][]byte
	event   *peer.ChaincodeEvent
	failing error // of every read
}

var (
	errScan  = errors.New("a transaction scans")
	errLarge = errors.New("more rows than one message takes")
)

// run proposes to the chaincode; nothing is committed.
func (c *channel) run(cc shim.Chaincode, p proposal, isQuery bool) (*peer.Response, *stub) {
	if p.txID == "" {
		digest := sha256.Sum256(fmt.Append(nil, c.commits, p.args))
		p.txID = fmt.Sprintf("%05x", c.commits) + hex.EncodeToString(digest[:])[5:]
	}
	c.reads = 0
	stub := &stub{proposal: p, channel: c, query: isQuery, writes: map[string][]byte{}}
	return cc.Invoke(stub), stub
}

// submit proposes, and commits what was written.
func (c *channel) submit(cc shim.Chaincode, p proposal) (*peer.Response, *stub) {
	response, stub := c.run(cc, p, false)
	if response.GetStatus() == shim.OK && len(stub.writes) > 0 {
		c.commits++
		for key, value := range stub.writes {
			c.rows[key] = append(c.rows[key], modification{value, stub.GetTxID(), timestamppb.New(p.at)})
		}
	}
	return response, stub
}

func (s *stub) GetFunctionAndParameters() (string, []string) { return s.args[0], s.args[1:] }

func (s *stub) GetTxID() string { return s.txID }

func (s *stub) GetCreator() ([]byte, error) { return s.creator, nil }

func (s *stub) GetTxTimestamp() (*timestamppb.Timestamp, error) { return timestamppb.New(s.at), nil }

func (s *stub) GetState(key string) ([]byte, error) {
	s.channel.reads++
	return s.channel.latest(key), s.failing
}

func (s *stub) GetMultipleStates(keys ...string) ([][]byte, error) {
	values := make([][]byte, len(keys))
	for i, key := range keys {
		values[i], _ = s.GetState(key)
	}
	return values, s.failing
}

func (s *stub) StartWriteBatch() {}

func (s *stub) PutState(key string, value []byte) error {
	s.writes[key] = value
	return nil
}

func (s *stub) SetEvent(name string, payload []byte) error {
	if s.event != nil {
		return errors.New("a second event")
	}
	s.event = &peer.ChaincodeEvent{EventName: name, Payload: payload}
	return nil
}

func (s *stub) GetStateByRangeWithPagination(
	start, end string, pageSize int32, bookmark string,
) (shim.StateQueryIteratorInterface, *peer.QueryResponseMetadata, error) {
	if !s.query {
		return nil, nil, errScan
	}
	if pageSize > contract.MaxRows {
		return nil, nil, errLarge
	}
	if bookmark != "" {
		start = bookmark
	}
	inRange := func(key string) bool { return start <= key && key < end }
	keys := slices.DeleteFunc(slices.Sorted(maps.Keys(s.channel.rows)), func(key string) bool { return !inRange(key) })
	most, next := int(min(pageSize, s.channel.pageMost)), ""
	if len(keys) > most {
		keys, next = keys[:most], keys[most]
	}
	var page []*queryresult.KV
	for _, key := range keys {
		page = append(page, &queryresult.KV{Key: key, Value: s.channel.latest(key)})
	}
	metadata := &peer.QueryResponseMetadata{FetchedRecordsCount: int32(len(page)), Bookmark: next}
	return &rows[*queryresult.KV]{left: page, failing: s.failing}, metadata, nil
}

func (s *stub) GetHistoryForKey(key string) (shim.HistoryQueryIteratorInterface, error) {
	if !s.query {
		return nil, errScan
	}
	var all []*queryresult.KeyModification
	for _, row := range slices.Backward(s.channel.rows[key]) {
		all = append(all, &queryresult.KeyModification{TxId: row.txID, Value: row.value, Timestamp: row.time})
	}
	return &rows[*queryresult.KeyModification]{left: all, failing: s.failing}, nil
}

type rows[T any] struct {
	left    []T
	failing error
}

func (r *rows[T]) HasNext() bool { return len(r.left) > 0 }

func (r *rows[T]) Next() (T, error) {
	row := r.left[0]
	r.left = r.left[1:]
	return row, r.failing
}

func (r *rows[T]) Close() error { return nil }

// creatorOf is a proposal's creator: MSP ID and certificate, as a peer hands it on.
func creatorOf(t testing.TB, mspID string, certificate []byte) []byte {
	t.Helper()
	creator, err := proto.Marshal(&msp.SerializedIdentity{Mspid: mspID, IdBytes: certificate})
	if err != nil {
		t.Fatal(err)
	}
	return creator
}

// newChaincode is the chaincode started with this policy, its clock at now.
func newChaincode(t testing.TB, policySHA256 []byte, now func() time.Time) shim.Chaincode {
	t.Helper()
	cc, err := host.New(policySHA256, now)
	if err != nil {
		t.Fatal(err)
	}
	return cc
}

func isQuery(name string) bool { return slices.Contains(contract.Queries(), name) }

// refused demands an error that begins so.
func refused(t *testing.T, response *peer.Response, beginning string) {
	t.Helper()
	if response.GetStatus() == shim.OK || !strings.HasPrefix(response.GetMessage(), beginning) {
		t.Errorf("expected an error %q, got status %d: %s%s",
			beginning, response.GetStatus(), response.GetMessage(), response.GetPayload())
	}
}
