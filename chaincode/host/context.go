package host

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"

	"github.com/hyperledger/fabric-chaincode-go/v2/pkg/cid"
	"github.com/hyperledger/fabric-contract-api-go/v2/contractapi"

	"orthanc-ledger/chaincode/contract"
	"orthanc-ledger/chaincode/ipld"
)

// Context is what Fabric says of one transaction.
type Context struct {
	contractapi.TransactionContext
}

// call is the transaction as the contract takes it. The error is NOT_PERMITTED certificate, or no refusal: arguments
// that are no canonical DAG-JSON, a time outside of what a sequence can hold.
func (ctx *Context) call(function, args, nonce string) (contract.Call, error) {
	given, err := decodeArgs(args)
	if err != nil {
		return contract.Call{}, err
	}
	moment, err := ctx.millis()
	if err != nil {
		return contract.Call{}, err
	}
	sequence, err := sequenceOf(moment, ctx.GetStub().GetTxID())
	if err != nil {
		return contract.Call{}, err
	}
	caller, err := ctx.caller()
	if err != nil {
		return contract.Call{}, err
	}
	return contract.Call{
		Function: function,
		Args:     given,
		Nonce:    decodeNonce(nonce),
		Caller:   caller,
		Time:     moment / 1000,
		Sequence: sequence,
	}, nil
}

// caller is who signed, by Fabric's attribute extension (OID 1.2.3.4.5.6.7.8.1). That the organisation's CA issued the
// certificate is the peer's to check. (GetClientIdentity would crash on a malformed extension.)
func (ctx *Context) caller() (contract.Caller, error) {
	identity, err := cid.New(ctx.GetStub())
	if err != nil {
		return contract.Caller{}, notPermitted("%v", err)
	}
	certificate, err := identity.GetX509Certificate()
	if err != nil || certificate == nil {
		return contract.Caller{}, notPermitted("expected an X.509 certificate")
	}
	kind, _, err := identity.GetAttributeValue("kind")
	if err != nil || (kind != "person" && kind != "node") {
		return contract.Caller{}, notPermitted("expected the attribute kind, person or node, got %q", kind)
	}
	serial := certificate.SerialNumber.Text(16)
	if !contract.IsSerial(serial) {
		return contract.Caller{}, notPermitted("its serial number %s is not one of RFC 5280 4.1.2.2", serial)
	}
	organisation, err := identity.GetMSPID()
	return contract.Caller{Organisation: organisation, Assurance: kind, Serial: serial}, err
}

// millis is the transaction's time in milliseconds since 1970, UTC.
func (ctx *Context) millis() (int64, error) {
	timestamp, err := ctx.GetStub().GetTxTimestamp()
	if err != nil {
		return 0, fmt.Errorf("FAILED time: %w", err)
	}
	if err := timestamp.CheckValid(); err != nil {
		return 0, fmt.Errorf("FAILED time: %w", err)
	}
	return timestamp.AsTime().UnixMilli(), nil
}

// sequenceOf is a commit's name, unlike any other's: its time in milliseconds × 2^20, plus the first 20 bits of the
// transaction's id.
func sequenceOf(millis int64, txID string) (int64, error) {
	const idBits, idDigits = 20, 5
	if millis < 0 || millis > math.MaxInt64>>idBits {
		return 0, fmt.Errorf("FAILED time: expected one from 1970 to 2248, got %d ms", millis)
	}
	if len(txID) < idDigits {
		return 0, fmt.Errorf("FAILED transaction id: expected 64 hexadecimal digits, got %q", txID)
	}
	id, err := strconv.ParseInt(txID[:idDigits], 16, 64)
	if err != nil {
		return 0, fmt.Errorf("FAILED transaction id: expected 64 hexadecimal digits, got %q", txID)
	}
	return millis<<idBits + id, nil
}

func decodeArgs(text string) (contract.Map, error) {
	value, err := ipld.DecodeJSON([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("FAILED args: %w", err)
	}
	args, fits := value.(contract.Map)
	if !fits {
		return nil, fmt.Errorf("FAILED args: expected a map by names, got %T", value)
	}
	return args, nil
}

// decodeNonce is the nonce's bytes. What are no lower-case hexadecimal digits is none: the contract refuses it in turn.
func decodeNonce(text string) []byte {
	nonce, err := hex.DecodeString(text)
	if err != nil || hex.EncodeToString(nonce) != text {
		return nil
	}
	return nonce
}

func notPermitted(detail string, values ...any) error {
	return &contract.Refusal{
		Code: contract.NotPermitted, Field: "certificate", Detail: fmt.Sprintf(detail, values...),
	}
}
