package contract

import "fmt"

// Code says of what kind a refusal is.
type Code string

// The contract's codes; docs/contract.md says which function answers with which.
const (
	NotFound     Code = "NOT_FOUND"
	NotPermitted Code = "NOT_PERMITTED"
	WrongState   Code = "WRONG_STATE"
	Expired      Code = "EXPIRED"
	Conflict     Code = "CONFLICT"
	Invalid      Code = "INVALID"
	Skew         Code = "SKEW"
)

// Refusal is the error of a call that breaks a rule of the contract: the same on every ledger, and for good.
type Refusal struct {
	Code   Code
	Field  string // the argument or the state that was at fault
	Detail string // for people; may differ from ledger to ledger
}

func (r *Refusal) Error() string {
	if r.Detail == "" {
		return fmt.Sprintf("%s %s", r.Code, r.Field)
	}
	return fmt.Sprintf("%s %s: %s", r.Code, r.Field, r.Detail)
}

func refuse(code Code, field, detail string, values ...any) error {
	return &Refusal{code, field, fmt.Sprintf(detail, values...)}
}
