package contract_test

import (
	"errors"
	"strings"
	"testing"

	"orthanc-ledger/chaincode/contract"
	"orthanc-ledger/chaincode/ipld"
)

var errAway = errors.New("the peer went away")

// away cannot be read.
type away struct{ *ledger }

func (away) Get(...string) ([]contract.Value, error) { return nil, errAway }

// silent gives fewer values than it was asked for, and no error: as Fabric 3.1 peers do when their database fails.
type silent struct{ *ledger }

func (silent) Get(...string) ([]contract.Value, error) { return nil, nil }

func TestAStateThatCannotBeReadIsNoRefusal(t *testing.T) {
	_, err := contract.Apply(away{}, confirmation())
	fault(t, err)
	if !errors.Is(err, errAway) {
		t.Errorf("the peer's words are lost: %v", err)
	}
	_, err = contract.Answer(away{}, "GetPolicy", ipld.Map{}, 0)
	fault(t, err)
	_, err = contract.Apply(silent{}, confirmation())
	fault(t, err)
}

func TestAStateThatNoFunctionWroteIsNoRefusal(t *testing.T) {
	for name, policy := range map[string]ipld.Value{
		"no record":       "text",
		"a field missing": ipld.Map{"organisations": ipld.Map{"CustodianMSP": "custodian"}},
		"another type":    ipld.Map{"max_clock_skew_s": "0", "organisations": ipld.List{}},
	} {
		t.Run(name, func(t *testing.T) {
			broken := &ledger{map[string][]contract.Write{"policy": {{Sequence: 1, Value: policy}}}, 1, nil}
			_, err := contract.Apply(broken, confirmation())
			fault(t, err)
		})
	}
}

func TestOfSeveralUnknownArgumentsTheFirstInDAGCBORIsNamed(t *testing.T) {
	call := confirmation()
	call.Args = ipld.Map{"zz": nil, "aaa": nil, "zy": nil, "manifestCid": nil}
	for range 20 { // a map has another order every time
		_, err := contract.Apply(&ledger{}, call)
		if err == nil || err.Error() != "INVALID zy: unknown argument" {
			t.Fatalf("expected INVALID zy, got %v", err)
		}
	}
}

// confirmation is a call of the right form.
func confirmation() contract.Call {
	return contract.Call{
		Function: "ConfirmStored",
		Args:     ipld.Map{"manifestCid": "bafyrei" + strings.Repeat("a", 52)},
		Nonce:    make([]byte, 16),
		Caller:   contract.Caller{Organisation: "CustodianMSP", Assurance: "person", Serial: "1"},
	}
}

func fault(t *testing.T, err error) {
	t.Helper()
	var refusal *contract.Refusal
	if err == nil || errors.As(err, &refusal) {
		t.Errorf("expected an error that is no refusal, got %v", err)
	}
}
