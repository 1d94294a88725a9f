package host_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"

	"orthanc-ledger/chaincode/internal/story"
	"orthanc-ledger/chaincode/ipld"
)

// teller tells stories to the chaincode, through the contract API. A commit's sequence is Fabric's here: the vectors'
// are put in its place, by the order of commits.
type teller struct {
	testing.TB
	stories  map[string]story.Story
	ledgers  map[string]*ledger
	creators map[[3]string][]byte
	ca       authority
	started  map[[32]byte]shim.Chaincode // with the policy of this digest
	clock    *time.Time                  // of all of them
}

// ledger is the channel as a story leaves it.
type ledger struct {
	*channel
	policy    ipld.Value
	sequences []int64 // Fabric's, in the order of commits: the vectors' are 1, 2, …
}

func newTeller(t testing.TB) teller {
	return teller{
		t, story.All(t), map[string]*ledger{}, map[[3]string][]byte{}, newAuthority(t), map[[32]byte]shim.Chaincode{},
		new(time.Time),
	}
}

func TestTheChaincodeTellsEveryStoryAsTheSecondImplementationDoesAndTwiceInTheSameBytes(t *testing.T) {
	one, other := newTeller(t), newTeller(t)
	other.ca, other.creators = one.ca, one.creators // their keys are random
	for name := range one.stories {                 // in an order of its own
		one.told(name)
	}
	for name := range other.stories {
		same := maps.EqualFunc(one.ledgers[name].rows, other.told(name).rows, func(a, b []modification) bool {
			return slices.EqualFunc(a, b, func(a, b modification) bool { return bytes.Equal(a.value, b.value) })
		})
		if !same {
			t.Errorf("%s: the second run wrote something else", name)
		}
	}
}

func (t teller) told(name string) *ledger {
	if ledger, done := t.ledgers[name]; done {
		return ledger
	}
	told := t.stories[name]
	after, before := &ledger{newChannel(), policyOf(told), nil}, ipld.Map{}
	if told.Start != "" {
		start := t.told(told.Start)
		before = start.state(t)
		after = &ledger{start.channel.copied(), start.policy, slices.Clone(start.sequences)}
	}
	for number, step := range told.Steps {
		where := fmt.Sprintf("%s, step %d: %s%s", name, number, step.Function, step.Query)
		story.Same(t, t.take(after, step), step.Then.Value, where)
	}
	story.Same(t, after.state(t), before.With(told.State.Map()), name+": the state afterwards")
	t.ledgers[name] = after
	return after
}

// take is what the chaincode makes of a step, as the vectors say it.
func (t teller) take(l *ledger, step story.Step) ipld.Value {
	*t.clock = time.Unix(step.At, 0)
	if step.HostAt != nil {
		*t.clock = time.Unix(*step.HostAt, 0)
	}
	cc := t.chaincode(l.policy)
	p := proposal{creator: t.creator(step), at: time.Unix(step.At, 0)}
	args := string(ipld.EncodeJSON(l.here(step)))
	if step.Query != "" {
		p.args = []string{step.Query, args}
		response, stub := l.run(cc, p, true)
		return t.outcome(l, response, stub)
	}
	p.args = []string{step.Function, args, hex.EncodeToString(story.NonceOf(step))}
	response, stub := l.submit(cc, p)
	return t.outcome(l, response, stub)
}

// chaincode is the one started with this policy.
func (t teller) chaincode(policy ipld.Value) shim.Chaincode {
	digest := sha256.Sum256(ipld.EncodeCBOR(policy))
	if t.started[digest] == nil {
		t.started[digest] = newChaincode(t, digest[:], func() time.Time { return *t.clock })
	}
	return t.started[digest]
}

func (t teller) outcome(l *ledger, response *peer.Response, stub *stub) ipld.Value {
	if response.GetStatus() != shim.OK {
		code, rest, _ := strings.Cut(response.GetMessage(), " ")
		field, _, _ := strings.Cut(rest, ": ")
		return ipld.Map{"error": ipld.List{code, field}}
	}
	answer := decoded(t, response.GetPayload())
	if stub.query {
		return ipld.Map{"answer": l.ordinal(answer)}
	}
	reply := answer.(ipld.Map)
	if repeats, is := reply["repeats"].(string); is {
		if len(stub.writes) > 0 || stub.event != nil {
			t.Errorf("a repeat of %s writes", stub.args[0])
		}
		number := slices.IndexFunc(l.sequences, func(s int64) bool { return s == l.sequenceOf(l.rows[repeats][0]) })
		return ipld.Map{"result": l.ordinal(reply["result"]), "repeats": int64(number + 1)}
	}
	l.sequences = append(l.sequences, reply.Int("sequence"))
	announced := stub.writes[fmt.Sprintf("event/%020d", reply.Int("sequence"))]
	if stub.event == nil || stub.event.EventName != stub.args[0] || !bytes.Equal(stub.event.Payload, announced) {
		t.Errorf("%s announces %v", stub.args[0], stub.event)
	}
	return l.ordinal(reply)
}

func (l *ledger) sequenceOf(row modification) int64 {
	id, _ := hex.DecodeString("0" + row.txID[:5])
	return row.time.AsTime().UnixMilli()<<20 + int64(id[0])<<16 + int64(id[1])<<8 + int64(id[2])
}

// ordinal is a value with the vectors' sequences, in their order.
func (l *ledger) ordinal(value ipld.Value) ipld.Value {
	switch value := value.(type) {
	case ipld.List:
		list := make(ipld.List, len(value))
		for i, item := range value {
			list[i] = l.ordinal(item)
		}
		return list
	case ipld.Map:
		values := ipld.Map{}
		for name, item := range value {
			values[name] = l.ordinal(item)
		}
		if sequence, is := values["sequence"].(int64); is {
			values["sequence"] = int64(slices.Index(l.sequences, sequence) + 1)
		}
		return values
	}
	return value
}

// here is a step's arguments with Fabric's sequence in place of the vectors'.
func (l *ledger) here(step story.Step) ipld.Value {
	args, _ := step.Args.Value.(ipld.Map)
	if after, is := args["after"].(int64); is && step.Query == "Audit" && 0 < after && after <= int64(len(l.sequences)) {
		return args.With(ipld.Map{"after": l.sequences[after-1]})
	}
	return step.Args.Value
}

// state is every key's last value, with the vectors' sequences.
func (l *ledger) state(t testing.TB) ipld.Map {
	state := ipld.Map{}
	for key := range l.rows {
		value := l.ordinal(decoded(t, l.latest(key)))
		for i, sequence := range l.sequences {
			key = strings.Replace(key, fmt.Sprintf("%020d", sequence), fmt.Sprintf("%020d", i+1), 1)
		}
		state[key] = value
	}
	return state
}

func (t teller) creator(step story.Step) []byte {
	who := [3]string{step.By, cmp.Or(step.Assurance, "person"), cmp.Or(step.Serial, "1")}
	if t.creators[who] == nil {
		certificate := t.ca.client(who[2], []byte(`{"attrs":{"kind":"`+who[1]+`"}}`))
		t.creators[who] = creatorOf(t, who[0], certificate)
	}
	return t.creators[who]
}

func decoded(t testing.TB, text []byte) ipld.Value {
	t.Helper()
	value, err := ipld.DecodeJSON(text)
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return value
}

func policyOf(told story.Story) ipld.Value {
	if told.Policy == nil {
		return nil
	}
	return told.Policy.Value
}
