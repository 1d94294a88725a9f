package contract

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
)

// Nodes: AE titles of an organisation, proposed by it and confirmed by the custodian, version by version.

func registerNode(tx *transaction) (effect, error) {
	if permitted := nodeRoles[tx.role]; !slices.Contains(permitted, tx.Args.Text("role")) {
		return effect{}, refuse(NotPermitted, "role", "%s registers %s nodes", tx.role, strings.Join(permitted, ", "))
	}
	node := Map{"organisation": tx.Caller.Organisation, "aeTitle": tx.Args["aeTitle"]}
	head := nodeHead(tx.reader, node)
	if head == nil {
		head = Map{"node": node, "versions": int64(0), "proposed": nil, "confirmed": nil, "revocations": int64(0)}
	}
	if latest := latestVersion(head); latest != nil {
		key := nodeKey("nodeVersion", node, latest.(int64))
		first, err := tx.record(key, "aeTitle")
		if err != nil {
			return effect{}, err
		}
		if differing(first, tx.Args, "role", "certDigests") == "" {
			return repeat(key, Map{"node": node, "version": latest})
		}
	}
	version := head.Int("versions") + 1
	return effect{result: Map{"node": node, "version": version}, changes: Map{
		nodeKey("node", node):                 head.With(Map{"versions": version, "proposed": version}),
		nodeKey("nodeVersion", node, version): tx.Args.Only("role", "certDigests").With(tx.stamp()),
	}}, nil
}

func confirmNode(tx *transaction) (effect, error) {
	node, version := tx.Args.Map("node"), tx.Args.Int("version")
	head, err := tx.record(nodeKey("node", node), "node")
	if err != nil {
		return effect{}, err
	}
	confirmation := nodeKey("nodeConfirmation", node, version)
	if tx.has(confirmation) {
		return repeat(confirmation, nil)
	}
	if head["proposed"] != version {
		return effect{}, refuse(WrongState, "version", "the proposed version is %v", head["proposed"])
	}
	return effect{changes: Map{
		nodeKey("node", node): head.With(Map{"proposed": nil, "confirmed": version}),
		confirmation:          tx.stamp(),
	}}, nil
}

func revokeNode(tx *transaction) (effect, error) {
	node := tx.Args.Map("node")
	if tx.role != "custodian" && node["organisation"] != tx.Caller.Organisation {
		return effect{}, refuse(NotPermitted, "node", "only its own organisation and the custodian revoke a node")
	}
	head, err := tx.record(nodeKey("node", node), "node")
	if err != nil {
		return effect{}, err
	}
	if latestVersion(head) == nil {
		return repeat(nodeKey("nodeRevocation", node, head.Int("revocations")), nil)
	}
	revocations := head.Int("revocations") + 1
	revoked := head.With(Map{"proposed": nil, "confirmed": nil, "revocations": revocations})
	return effect{changes: Map{
		nodeKey("node", node):                        revoked,
		nodeKey("nodeRevocation", node, revocations): tx.stamp(),
	}}, nil
}

func allNodes(q *question) (Value, error) {
	return page(func(yield func(Value) bool) {
		for _, head := range q.scanRecords("node/", "") {
			if !yield(shownNode(q.reader, head)) {
				return
			}
		}
	}, q.args), nil
}

// nodeHead is {node, versions, proposed, confirmed, revocations} of a registered node: version numbers from 1; or nil.
func nodeHead(state reader, node Map) Map {
	return state.find(nodeKey("node", node))
}

// nodeStands tells whether the node a request is for may still have what is approved on it. A node that is confirmed
// anew after a revocation does not get its old approvals back.
func nodeStands(policy Map, state reader, request Map) bool {
	node := request.Map("node")
	head := nodeHead(state, node)
	return head != nil && policy.Map("organisations").Has(node.Text("organisation")) &&
		head["confirmed"] != nil && head.Int("revocations") == request.Int("revocations")
}

// nodePath is a node in a key. An AE title may hold a slash: it goes in as hex.
func nodePath(node Map) string {
	return key(node.Text("organisation"), hex.EncodeToString([]byte(node.Text("aeTitle"))))
}

func nodeKey(kind string, node Map, number ...int64) string {
	path := key(kind, nodePath(node))
	for _, n := range number {
		path = key(path, strconv.FormatInt(n, 10))
	}
	return path
}

// latestVersion is the number of the version that was proposed or confirmed last and stands; nil when none does.
func latestVersion(head Map) Value {
	if head["proposed"] != nil {
		return head["proposed"]
	}
	return head["confirmed"]
}

func shownNode(state reader, head Map) Map {
	shown := Map{"node": head["node"], "state": "revoked", "proposed": nil, "confirmed": nil}
	for _, standing := range []string{"proposed", "confirmed"} { // confirmed counts before proposed
		if head[standing] == nil {
			continue
		}
		version := head.Int(standing)
		content := state.find(nodeKey("nodeVersion", head.Map("node"), version)).Only("role", "certDigests")
		shown[standing] = content.With(Map{"version": version})
		shown["state"] = standing
	}
	return shown
}
