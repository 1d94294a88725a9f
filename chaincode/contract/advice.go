package contract

import "iter"

// What readers go by: a study's standing, and what a node may ask for. Only LogRelease decides.

// standingOf is what a gate must leave out of a release at this version.
func standingOf(q *question) (Value, error) {
	study := q.args.Bytes("study")
	flagged, resolved := flagsOf(q, study)
	return Map{
		"version":    standing(q.reader, study),
		"superseded": superseded(q, study),
		"flagged":    flagged,
		"resolved":   resolved,
		"withdrawn":  withdrawalsOf(q, study),
		"erased":     erasureOf(q.reader, study),
	}, nil
}

// checkAccess is what LogRelease would most likely say: {permitted, reason, request, until} of the approval that runs
// longest.
func checkAccess(q *question) (Value, error) {
	study, refusal := q.args.Bytes("study"), noApproval
	var longest Map
	for request := range requestsOfNode(q, q.args.Map("node")) {
		if !covers(q.reader, request, study, q.args) || fallen(q.policy, q.reader, request) != "" {
			continue
		}
		switch stateAt(request, q.time) {
		case "expired":
			refusal = approvalExpired
		case "approved":
			if longest == nil || request.Int("until") > longest.Int("until") {
				longest = request
			}
		}
	}
	if longest != nil && erasureOf(q.reader, study) != "none" {
		longest, refusal = nil, withdrawn
	}
	if longest == nil {
		return Map{"permitted": false, "reason": refusal, "request": nil, "until": nil}, nil
	}
	return Map{"permitted": true, "reason": nil, "request": longest["id"], "until": longest["until"]}, nil
}

// approvedStudies is what a node may ask for now, request by request.
func approvedStudies(q *question) (Value, error) {
	return page(approved(q), q.args), nil
}

func approved(q *question) iter.Seq[Value] {
	return func(yield func(Value) bool) {
		for request := range requestsOfNode(q, q.args.Map("node")) {
			if stateAt(request, q.time) != "approved" || fallen(q.policy, q.reader, request) != "" {
				continue
			}
			if !yield(offered(q, request)) {
				return
			}
		}
	}
}

func offered(q *question, request Map) Map {
	shown := request.Only("sopClasses", "release", "until", "future", "coveredUntil")
	shown["request"], shown["studies"], shown["dataset"] = request["id"], nil, nil
	if request.Has("dataset") {
		shown["dataset"] = Map{"id": request["dataset"], "version": request["version"]}
		return shown
	}
	studies := List{}
	for _, study := range namedStudies(request) {
		if erasureOf(q.reader, study) == "none" {
			studies = append(studies, study)
		}
	}
	shown["studies"] = studies
	return shown
}
