// Package host runs the contract as Fabric chaincode, by the official contract API: transactions and queries named like
// the contract's functions, Call and State out of the stub, a service with mutual TLS.
//
// A transaction takes two strings: its arguments as canonical DAG-JSON, and a nonce of 32 lower-case hexadecimal
// digits. It answers {"result", "sequence"}, or {"result", "repeats": KEY}: then it has written nothing, and ordering
// it is not needed. A query takes its arguments and answers in DAG-JSON. The error of a refusal is the text
// `CODE field: detail`; what is no refusal begins with FAILED.
package host

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-contract-api-go/v2/contractapi"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"

	"orthanc-ledger/chaincode/contract"
	"orthanc-ledger/chaincode/ipld"
)

// getMetadata is the contract API's own function, which describes the others.
const getMetadata = contractapi.SystemContractName + ":GetMetadata"

// What arguments may take. The largest that the contract knows: the certificates of 256 organisations, 1.5 MB; 1024
// releases, some 3,100 marks.
const (
	maxBytes = 2 << 20
	maxMarks = 8192
)

// Custody is the contract as the contract API takes it: each exported method is a transaction or a query.
type Custody struct {
	contractapi.Contract
	policySHA256 []byte
	now          func() time.Time
}

// chaincode takes exactly the names of the contract. The contract API alone would take anchor for Anchor, and has its
// own words for a name in another namespace and for missing arguments.
type chaincode struct {
	*contractapi.ContractChaincode
	arguments map[string]int // how many each function takes
}

// New is the chaincode. InitPolicy takes the policy with this SHA-256 (of its DAG-CBOR); now is the clock that a
// transaction's time is compared with.
func New(policySHA256 []byte, now func() time.Time) (shim.Chaincode, error) {
	custody := &Custody{policySHA256: policySHA256, now: now}
	custody.TransactionContextHandler = new(Context)
	custody.Info.Title = "custody"
	api, err := contractapi.NewChaincode(custody)
	if err != nil {
		return nil, fmt.Errorf("the contract API refuses the contract: %w", err)
	}
	arguments := map[string]int{getMetadata: 0}
	for _, function := range contract.Functions() {
		arguments[function] = 2
	}
	for _, query := range contract.Queries() {
		arguments[query] = 1
	}
	return chaincode{api, arguments}, nil
}

// Invoke runs one transaction or query. What comes from anybody is measured before it is read, and never told again.
func (c chaincode) Invoke(stub shim.ChaincodeStubInterface) *peer.Response {
	name, given := stub.GetFunctionAndParameters()
	if wanted, known := c.arguments[name]; !known || len(given) != wanted {
		return invalid("function", "none of this name with %d arguments", len(given))
	}
	for _, text := range given {
		if len(text) > maxBytes || marks(text) > maxMarks {
			return invalid("args", "more than %d bytes, or %d commas and opening brackets", maxBytes, maxMarks)
		}
	}
	return c.ContractChaincode.Invoke(stub)
}

// GetEvaluateTransactions names the queries, for the metadata.
func (c *Custody) GetEvaluateTransactions() []string {
	return contract.Queries()
}

// submit runs a transaction: the contract decides, then its changes are written.
func (c *Custody) submit(ctx *Context, function, args, nonce string) (string, error) {
	call, err := ctx.call(function, args, nonce)
	if err != nil {
		return "", err
	}
	call.HostTime, call.PolicySHA256 = c.now().Unix(), c.policySHA256
	applied, err := contract.Apply(worldState{ctx.GetStub()}, call)
	if err != nil {
		return "", told(err)
	}
	if applied.Repeats != "" {
		return reply(contract.Map{"result": applied.Result, "repeats": applied.Repeats}), nil
	}
	if err := commit(ctx.GetStub(), call.Sequence, applied); err != nil {
		return "", err
	}
	return reply(contract.Map{"result": applied.Result, "sequence": call.Sequence}), nil
}

// evaluate answers a query at the time that the asking client gives.
func (c *Custody) evaluate(ctx *Context, query, args string) (string, error) {
	given, err := decodeArgs(args)
	if err != nil {
		return "", err
	}
	millis, err := ctx.millis()
	if err != nil {
		return "", err
	}
	answer, err := contract.Answer(worldState{ctx.GetStub()}, query, given, millis/1000)
	if err != nil {
		return "", told(err)
	}
	return reply(answer), nil
}

// commit writes what a call changes, and its event. Reading the event's key keeps two commits from having one sequence:
// one after the other is refused here, and of two in flight Fabric lets only one read an absent key and write it.
func commit(stub shim.ChaincodeStubInterface, sequence int64, applied contract.Applied) error {
	taken, err := stub.GetState(contract.EventKey(sequence))
	if err != nil {
		return told(err)
	}
	if taken != nil {
		return fmt.Errorf("FAILED sequence: %d is another transaction's: send it anew", sequence)
	}
	stub.StartWriteBatch()                    // one message for all; sent at the end
	for key, value := range applied.Changes { // in any order: what peers sign is sorted
		if err := stub.PutState(key, ipld.EncodeJSON(value)); err != nil {
			return fmt.Errorf("FAILED write of %s: %w", key, err)
		}
	}
	if err := stub.SetEvent(applied.Event.Name, ipld.EncodeJSON(applied.Event.Payload)); err != nil {
		return fmt.Errorf("FAILED event: %w", err)
	}
	return nil
}

// told is an error of the contract as clients read it: a refusal as it is.
func told(err error) error {
	var refusal *contract.Refusal
	if errors.As(err, &refusal) {
		return refusal
	}
	return fmt.Errorf("FAILED %w", err)
}

// marks bounds how many values a text has, each of which takes far more memory than its bytes.
func marks(text string) int {
	return strings.Count(text, ",") + strings.Count(text, "[") + strings.Count(text, "{")
}

func invalid(field, detail string, values ...any) *peer.Response {
	refusal := &contract.Refusal{Code: contract.Invalid, Field: field, Detail: fmt.Sprintf(detail, values...)}
	return shim.Error(refusal.Error())
}

func reply(answer contract.Value) string {
	return string(ipld.EncodeJSON(answer))
}
