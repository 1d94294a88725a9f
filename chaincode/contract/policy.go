package contract

import (
	"bytes"
	"crypto/sha256"
	"maps"
	"reflect"

	"orthanc-ledger/chaincode/ipld"
)

// The channel's policy: who is what, and what a release needs. It changes when owner and custodian agree.

const (
	policyKey           = "policy"
	policyVersionKey    = "policyVersion"
	policyProposals     = "policyProposal/"
	maxOrganisations    = 256
	maxCertificateBytes = 4096
	dayS                = 86_400
)

var approvers = unique(code([]string{"owner", "custodian"}), 1, 2)

var policySchema = schema{
	required("organisations", isOrganisations),
	required("approvals", approvers),
	required("identified_needs", approvers),
	required("release_forms", unique(code(releaseForms), 1, len(releaseForms))),
	required("max_days", integer(1, maxDays)),
	required("lease_s", integer(1, 60)), // objects may start to leave until a lease ends: 60 s is the promise
	required("require_stored", isBoolean),
	required("erase_grace_s", integer(0, 365*dayS)),
	required("max_clock_skew_s", integer(0, dayS)),
	required("excluded_origins", unique(code(origins), 0, len(origins))),
	optional("certificates", isCertificates),
}

// isOrganisations takes exactly one owner and one custodian; any number of research organisations.
func isOrganisations(value Value) bool {
	organisations, fits := value.(Map)
	if !fits || len(organisations) < 2 || len(organisations) > maxOrganisations {
		return false
	}
	count := map[Value]int{}
	for name, role := range organisations {
		if !isMSPID(name) || !code(roles)(role) {
			return false
		}
		count[role]++
	}
	return count["owner"] == 1 && count["custodian"] == 1
}

// isCertificates takes MSP ID to CA certificate. Fabric goes by the channel's MSPs: here only the form is checked.
func isCertificates(value Value) bool {
	certificates, fits := value.(Map)
	if !fits || len(certificates) > maxOrganisations {
		return false
	}
	for name, certificate := range certificates {
		der, fits := certificate.([]byte)
		if !isMSPID(name) || !fits || len(der) < 1 || len(der) > maxCertificateBytes {
			return false
		}
	}
	return true
}

// policyInForce is the channel's policy. The error is WRONG_STATE policy when there is none yet.
func policyInForce(state reader) (Map, error) {
	policy := state.find(policyKey)
	if policy == nil {
		return nil, refuse(WrongState, "policy", "InitPolicy comes first")
	}
	return policy, nil
}

// neededRoles is the roles that must all approve a release of this form.
func neededRoles(policy Map, release string) List {
	if release == "identified" {
		return policy.List("identified_needs")
	}
	return policy.List("approvals")
}

// initPolicy's policy is of the right form: policyFor has checked it.
func initPolicy(tx *transaction) (effect, error) {
	digest := sha256.Sum256(ipld.EncodeCBOR(tx.policy))
	if !bytes.Equal(digest[:], tx.PolicySHA256) {
		return effect{}, refuse(Invalid, "policy", "not the policy whose SHA-256 this ledger was started with")
	}
	if tx.has(policyKey) { // the digest fits: it can only be the same one
		return repeat(policyKey, nil)
	}
	return effect{changes: Map{policyKey: tx.policy}}, nil
}

// proposePolicy proposes on the policy in force; the other party confirms it, or another one and this is void.
func proposePolicy(tx *transaction) (effect, error) {
	policy := tx.Args.Map("policy")
	if err := policySchema.refusal(policy); err != nil {
		return effect{}, err
	}
	id := tx.id()
	result := Map{"id": id}
	if tx.has(proposalKey(id)) {
		return repeat(proposalKey(id), result)
	}
	if !reflect.DeepEqual(hospital(policy), hospital(tx.policy)) {
		return effect{}, refuse(Invalid, "organisations", "owner and custodian are fixed with the channel")
	}
	basis := tx.counter(policyVersionKey)
	record := Map{"policy": policy, "basis": basis, "state": "pending"}.With(tx.stamp())
	return effect{result: result, changes: Map{proposalKey(id): record}}, nil
}

func confirmPolicy(tx *transaction) (effect, error) {
	id := tx.Args.Bytes("id")
	proposal, err := tx.record(proposalKey(id), "id")
	if err != nil {
		return effect{}, err
	}
	if tx.own(proposal) {
		return effect{}, refuse(NotPermitted, "id", "its own proposal: the other party confirms")
	}
	confirmation := key("policyConfirmation", token(id))
	if first := tx.find(confirmation); first != nil {
		return repeat(confirmation, first.Only("version"))
	}
	if state := proposalState(tx.reader, proposal); state != "pending" {
		return effect{}, refuse(WrongState, state, "propose it anew on the policy in force")
	}
	result := Map{"version": tx.counter(policyVersionKey) + 1}
	return effect{result: result, changes: Map{
		confirmation:     result.With(tx.stamp()),
		proposalKey(id):  proposal.With(Map{"state": "confirmed"}),
		policyKey:        proposal.Map("policy"),
		policyVersionKey: result["version"],
	}}, nil
}

func getPolicy(q *question) (Value, error) {
	return q.policy, nil
}

// proposalState is pending, confirmed, cancelled, or void: made on a policy that is in force no more.
func proposalState(state reader, proposal Map) string {
	recorded := proposal.Text("state")
	if recorded == "pending" && proposal.Int("basis") != state.counter(policyVersionKey) {
		return "void"
	}
	return recorded
}

func proposalKey(id []byte) string {
	return policyProposals + token(id)
}

// hospital is owner and custodian organisation; all others are research.
func hospital(policy Map) Map {
	organisations := maps.Clone(policy.Map("organisations"))
	maps.DeleteFunc(organisations, func(_ string, role Value) bool { return role == "research" })
	return organisations
}
