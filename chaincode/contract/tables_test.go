package contract

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"testing"
)

// tables is testdata/contract.json: the contract's names and codes, which the Python implementation is held against as
// well. Forms and bounds of arguments are in the vectors.
type tables struct {
	Codes struct {
		AnchorKinds, DenialReasons, DUO, Origins, Profiles, Reasons, ReleaseForms, RetrievalOutcomes []string
		RevocationReasons, Roles, States, SupersedeReasons, WithdrawalReasons                        []string

		NodeRoles map[string][]string
	}
	Functions map[string]tableRow
	Queries   map[string][]string
	Policy    []string
}

type tableRow struct {
	Roles     []string
	Arguments []string
}

func TestNamesRolesAndCodesAreThoseOfTheFileThatBothImplementationsAreHeldAgainst(t *testing.T) {
	text, err := os.ReadFile("testdata/contract.json")
	if err != nil {
		t.Fatal(err)
	}
	var wanted, here tables
	if err := json.Unmarshal(text, &wanted); err != nil {
		t.Fatal(err)
	}
	here.Codes.AnchorKinds, here.Codes.DenialReasons = anchorKinds, denialReasons
	here.Codes.DUO = slices.Sorted(slices.Values(duo))
	here.Codes.Origins, here.Codes.Profiles, here.Codes.Reasons = origins, profiles, reasons
	here.Codes.ReleaseForms, here.Codes.RetrievalOutcomes = releaseForms, retrievalOutcomes
	here.Codes.RevocationReasons, here.Codes.Roles, here.Codes.States = revocationReasons, roles, states
	here.Codes.SupersedeReasons, here.Codes.WithdrawalReasons = supersedeReasons, withdrawalReasons
	here.Codes.NodeRoles = nodeRoles
	here.Functions, here.Queries = map[string]tableRow{}, map[string][]string{}
	for name, function := range functions {
		here.Functions[name] = tableRow{function.roles, namesOf(function.arguments)}
	}
	for name, query := range queries {
		here.Queries[name] = namesOf(query.arguments)
	}
	here.Policy = namesOf(policySchema)
	if !reflect.DeepEqual(here, wanted) {
		t.Errorf("here\n%+v\nin the file\n%+v", here, wanted)
	}
}

// namesOf is a schema's names in their order; optional ones end in a question mark.
func namesOf(arguments schema) []string {
	names := []string{}
	for _, argument := range arguments {
		if argument.optional {
			argument.name += "?"
		}
		names = append(names, argument.name)
	}
	return names
}
