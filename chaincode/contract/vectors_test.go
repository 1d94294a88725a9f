package contract_test

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"orthanc-ledger/chaincode/contract"
	"orthanc-ledger/chaincode/internal/story"
	"orthanc-ledger/chaincode/ipld"
)

// ledger is every write of every key, in memory.
type ledger struct {
	writes  map[string][]contract.Write
	commits int64
	policy  ipld.Value
}

func (l *ledger) Get(keys ...string) ([]contract.Value, error) {
	values := make([]contract.Value, len(keys))
	for i, key := range keys {
		if writes := l.writes[key]; len(writes) > 0 {
			values[i] = writes[len(writes)-1].Value
		}
	}
	return values, nil
}

func (l *ledger) Scan(prefix, after string) iter.Seq2[contract.Entry, error] {
	return func(yield func(contract.Entry, error) bool) {
		for _, key := range slices.Sorted(maps.Keys(l.writes)) {
			values, err := l.Get(key)
			if strings.HasPrefix(key, prefix) && key > after && !yield(contract.Entry{Key: key, Value: values[0]}, err) {
				return
			}
		}
	}
}

func (l *ledger) History(key string) iter.Seq2[contract.Write, error] {
	return func(yield func(contract.Write, error) bool) {
		for _, write := range l.writes[key] {
			if !yield(write, nil) {
				return
			}
		}
	}
}

func (l *ledger) copied() *ledger {
	writes := map[string][]contract.Write{}
	for key, list := range l.writes {
		writes[key] = slices.Clone(list)
	}
	return &ledger{writes, l.commits, l.policy}
}

func (l *ledger) commit(applied contract.Applied) {
	l.commits++
	for key, value := range applied.Changes {
		l.writes[key] = append(l.writes[key], contract.Write{Sequence: l.commits, Value: value})
	}
}

func (l *ledger) state() ipld.Map {
	state := ipld.Map{}
	for key, list := range l.writes {
		state[key] = list[len(list)-1].Value
	}
	return state
}

func TestTheCoreTellsEveryStoryAsTheSecondImplementationDoes(t *testing.T) {
	teller := teller{t, story.All(t), map[string]*ledger{}}
	for _, name := range slices.Sorted(maps.Keys(teller.stories)) {
		teller.told(name)
	}
}

// teller takes the steps of stories, those a story starts from first.
type teller struct {
	*testing.T
	stories map[string]story.Story
	ledgers map[string]*ledger
}

// told is the ledger as a story leaves it.
func (t teller) told(name string) *ledger {
	if ledger, done := t.ledgers[name]; done {
		return ledger
	}
	told := t.stories[name]
	before := t.begun(told)
	after := before.copied()
	for number, step := range told.Steps {
		where := fmt.Sprintf("%s, step %d: %s%s", name, number, step.Function, step.Query)
		story.Same(t, t.take(after, step), step.Then.Value, where)
	}
	story.Same(t, after.state(), before.state().With(told.State.Map()), name+": the state afterwards")
	t.ledgers[name] = after
	return after
}

func (t teller) begun(told story.Story) *ledger {
	if told.Start != "" {
		return t.told(told.Start)
	}
	return &ledger{map[string][]contract.Write{}, 0, told.Policy.Value}
}

// take is what the contract makes of a step, as the vectors say it; changes are written.
func (t teller) take(l *ledger, step story.Step) ipld.Map {
	if step.Query != "" {
		answer, err := contract.Answer(l, step.Query, step.Args.Map(), step.At)
		if err != nil {
			return refused(err)
		}
		return ipld.Map{"answer": answer}
	}
	applied, err := contract.Apply(l, l.call(step))
	switch {
	case err != nil:
		return refused(err)
	case applied.Repeats != "":
		return ipld.Map{"result": applied.Result, "repeats": l.writes[applied.Repeats][0].Sequence}
	}
	l.commit(applied)
	story.Same(t, applied.Event.Payload, l.state()[contract.EventKey(l.commits)], "the event of "+applied.Event.Name)
	return ipld.Map{"result": applied.Result, "sequence": l.commits}
}

func (l *ledger) call(step story.Step) contract.Call {
	hostTime, started := step.At, sha256.Sum256(ipld.EncodeCBOR(l.policy))
	if step.HostAt != nil {
		hostTime = *step.HostAt
	}
	return contract.Call{
		Function:     step.Function,
		Args:         step.Args.Map(),
		Nonce:        story.NonceOf(step),
		Caller:       contract.Caller{step.By, cmp.Or(step.Assurance, "person"), cmp.Or(step.Serial, "1")},
		Time:         step.At,
		HostTime:     hostTime,
		Sequence:     l.commits + 1,
		PolicySHA256: started[:],
	}
}

func refused(err error) ipld.Map {
	var refusal *contract.Refusal
	if !errors.As(err, &refusal) {
		return ipld.Map{"failed": err.Error()}
	}
	return ipld.Map{"error": ipld.List{string(refusal.Code), refusal.Field}}
}
