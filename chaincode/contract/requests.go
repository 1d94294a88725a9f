package contract

import (
	"iter"
	"slices"
	"strings"
)

// Requests of research organisations, and what owner and custodian decide about them.

const requestPrefix = "request/"

func requestAccess(tx *transaction) (effect, error) {
	id := tx.id()
	result := Map{"id": id}
	if tx.has(requestKey(id)) {
		return repeat(requestKey(id), result)
	}
	if err := checkAsked(tx); err != nil {
		return effect{}, err
	}
	node := tx.Args.Map("node")
	head, err := nodeAsking(tx, node)
	if err != nil {
		return effect{}, err
	}
	if tx.Args.Has("dataset") {
		if _, err := findDataset(tx); err != nil {
			return effect{}, err
		}
		if !datasetStands(tx.reader, tx.Args) {
			return effect{}, refuse(WrongState, "dataset", "this version was withdrawn")
		}
	}
	record := tx.noted().With(Map{
		"id":           id,
		"revocations":  head["revocations"],
		"state":        "open",
		"until":        nil,
		"coveredUntil": nil,
	})
	index := key("nodeRequest", nodePath(node), token(id))
	return effect{result, Map{requestKey(id): record, index: true}, namedStudies(record), ""}, nil
}

func approve(tx *transaction) (effect, error) {
	id := tx.Args.Bytes("id")
	request, err := findRequest(tx, id, "id")
	if err != nil {
		return effect{}, err
	}
	needs := texts(neededRoles(tx.policy, request.Text("release")))
	if !slices.Contains(needs, tx.role) {
		return effect{}, refuse(NotPermitted, "role", "this release needs %s", strings.Join(needs, ", "))
	}
	approval := approvalKey(id, tx.role)
	first := tx.find(approval)
	if first != nil && differing(first, tx.Args, "until", "release") == "" {
		return repeat(approval, first["result"])
	}
	if err := checkApprovable(tx, request); err != nil {
		return effect{}, err
	}
	if first != nil {
		return effect{}, refuse(WrongState, "approved", "%s approved until %d already", tx.role, first["until"])
	}
	decided, changes, err := decided(tx, request, needs)
	if err != nil {
		return effect{}, err
	}
	result := decided.Only("id", "state", "until")
	changes[approval] = tx.Args.Only("until", "release").With(tx.stamp()).With(Map{"result": result})
	return effect{result, changes, namedStudies(request), ""}, nil
}

func deny(tx *transaction) (effect, error) {
	return end(tx, "denial", "denied", "open")
}

func revoke(tx *transaction) (effect, error) {
	if tx.role == "research" {
		request, err := findRequest(tx, tx.Args.Bytes("id"), "id")
		if err != nil {
			return effect{}, err
		}
		if !tx.own(request) {
			return effect{}, refuse(NotPermitted, "id", "a request of another organisation")
		}
	}
	return end(tx, "revocation", "revoked", "open", "approved")
}

func getRequest(q *question) (Value, error) {
	request, err := q.record(requestKey(q.args.Bytes("id")), "id")
	if err != nil {
		return nil, err
	}
	return shownRequest(q, request), nil
}

func requestsByState(q *question) (Value, error) {
	after := ""
	if q.args.Has("after") {
		after = requestKey(q.args.Bytes("after"))
	}
	return page(func(yield func(Value) bool) {
		for _, request := range q.scanRecords(requestPrefix, after) {
			wanted := !q.args.Has("state") || stateAt(request, q.time) == q.args["state"]
			if wanted && !yield(shownRequest(q, request)) {
				return
			}
		}
	}, q.args), nil
}

// findRequest is the request that an argument names. The error is NOT_FOUND.
func findRequest(tx *transaction, id []byte, argument string) (Map, error) {
	return tx.record(requestKey(id), argument)
}

// requestsOfNode is all requests of a node, by id.
func requestsOfNode(q *question, node Map) iter.Seq[Map] {
	return func(yield func(Map) bool) {
		for place := range q.scan(key("nodeRequest", nodePath(node), ""), "") {
			if !yield(q.find(requestPrefix + lastPart(place))) {
				return
			}
		}
	}
}

// stateAt is the request's state; an approval whose time has run out is expired.
func stateAt(request Map, time int64) string {
	state := request.Text("state")
	if state == "approved" && time >= request.Int("until") {
		return "expired"
	}
	return state
}

// fallen is what a request rests on and stands no more: its node, or the dataset it is on; "" when both stand.
func fallen(policy Map, state reader, request Map) string {
	switch {
	case !nodeStands(policy, state, request):
		return "node"
	case !datasetStands(state, request):
		return "dataset"
	}
	return ""
}

// checkStands is WRONG_STATE node or dataset.
func checkStands(tx *transaction, request Map) error {
	if part := fallen(tx.policy, tx.reader, request); part != "" {
		return refuse(WrongState, part, "revoked, withdrawn or outside the policy since the request")
	}
	return nil
}

// namedStudies is the studies a request names; none for one on a dataset.
func namedStudies(request Map) [][]byte {
	if !request.Has("studies") {
		return nil
	}
	return byteStrings(request.List("studies"))
}

// checkAsked: a request is on named studies or on one version of a dataset, within what the policy offers.
func checkAsked(tx *transaction) error {
	named, dataset, version := tx.Args.Has("studies"), tx.Args.Has("dataset"), tx.Args.Has("version")
	if dataset != version || named == dataset {
		return refuse(Invalid, "dataset", "expected either studies, or dataset and version")
	}
	if offered := tx.policy.List("release_forms"); !slices.Contains(offered, tx.Args["release"]) {
		return refuse(Invalid, "release", "offered: %v", offered)
	}
	if most := tx.policy.Int("max_days"); tx.Args.Int("days") > most {
		return refuse(Invalid, "days", "at most %d", most)
	}
	return nil
}

// nodeAsking is the head of the node that a request is for: a confirmed one of the calling organisation.
func nodeAsking(tx *transaction, node Map) (Map, error) {
	if node["organisation"] != tx.Caller.Organisation {
		return nil, refuse(NotPermitted, "node", "not a node of the requesting organisation")
	}
	head := nodeHead(tx.reader, node)
	if head == nil {
		return nil, refuse(NotFound, "node", "not registered")
	}
	if head["confirmed"] == nil {
		return nil, refuse(WrongState, "node", "not confirmed")
	}
	return head, nil
}

func checkApprovable(tx *transaction, request Map) error {
	if state := request.Text("state"); state != "open" {
		return refuse(WrongState, state, "")
	}
	if differing(request, tx.Args, "release") != "" {
		return refuse(Invalid, "release", "requested: %s", request["release"])
	}
	if err := checkStands(tx, request); err != nil {
		return err
	}
	for _, study := range namedStudies(request) {
		if err := checkNotErased(tx.reader, study); err != nil {
			return err
		}
	}
	until, days := tx.Args.Int("until"), min(request.Int("days"), tx.policy.Int("max_days"))
	if until <= tx.Time {
		return refuse(Expired, "until", "now is %d", tx.Time)
	}
	if until > tx.Time+days*dayS {
		return refuse(Invalid, "until", "later than %d days from now", days)
	}
	return nil
}

// decided is the request with the caller's approval, and what changes besides. With the last needed one it is approved
// until the smallest until of all, and covers what is anchored now, unless future.
func decided(tx *transaction, request Map, needs []string) (Map, Map, error) {
	until := tx.Args.Int("until")
	for _, role := range needs {
		if role == tx.role {
			continue
		}
		other := tx.find(approvalKey(request.Bytes("id"), role))
		if other == nil {
			return request, Map{}, nil
		}
		until = min(until, other.Int("until"))
	}
	if tx.Time >= until {
		return nil, nil, refuse(Expired, "until", "the other approval has run out: a new request is needed")
	}
	covered, changes := coverage(tx.reader, request)
	approved := request.With(Map{"state": "approved", "until": until, "coveredUntil": covered})
	changes[requestKey(request.Bytes("id"))] = approved
	return approved, changes, nil
}

// coverage is what an approval covers (isCovered), and the change that tells later anchors of it.
func coverage(state reader, request Map) (Value, Map) {
	if request.Bool("future") {
		return nil, Map{}
	}
	if request.Has("dataset") {
		number := state.counter(datasetApprovals) + 1
		return number, Map{datasetApprovals: number}
	}
	covered := Map{}
	for _, study := range namedStudies(request) {
		covered[token(study)] = anchorsSoFar(state, study)
	}
	return covered, Map{}
}

// end ends a request that is in one of these states.
func end(tx *transaction, kind, state string, from ...string) (effect, error) {
	id := tx.Args.Bytes("id")
	request, err := findRequest(tx, id, "id")
	if err != nil {
		return effect{}, err
	}
	word := key(kind, token(id))
	first := tx.find(word)
	if first != nil && tx.own(first) && differing(first, tx.Args, "reason", "textCommitment") == "" {
		return repeat(word, nil)
	}
	if current := request.Text("state"); !slices.Contains(from, current) {
		return effect{}, refuse(WrongState, current, "")
	}
	changes := Map{word: tx.noted(), requestKey(id): request.With(Map{"state": state})}
	return effect{nil, changes, namedStudies(request), ""}, nil
}

func shownRequest(q *question, request Map) Map {
	approvals := Map{}
	for _, role := range []string{"owner", "custodian"} {
		if approval := q.find(approvalKey(request.Bytes("id"), role)); approval != nil {
			approvals[role] = approval.Only("until", "by", "time")
		}
	}
	return request.With(Map{
		"state":     stateAt(request, q.time),
		"needs":     neededRoles(q.policy, request.Text("release")),
		"approvals": approvals,
	})
}

func requestKey(id []byte) string {
	return requestPrefix + token(id)
}

func approvalKey(id []byte, role string) string {
	return key("approval", token(id), role)
}
