package contract

// The contract's queries: what may be asked, with which arguments.

// query is a read-only function, open to all.
type query struct {
	arguments schema
	run       func(*question) (Value, error)
}

var queries = map[string]query{
	"CheckAccess": {
		aboutStudy.and(required("node", isNode), optional("proof", isProof)), checkAccess,
	},
	"ApprovedStudies": {aboutNode.and(pageArguments...), approvedStudies},
	"GetAnchor":       {aboutManifest, getAnchor},
	"Anchors":         {schema{optional("after", isManifestCID)}.and(pageArguments...), allAnchors},
	"AnchorsOfStudy":  {aboutStudy.and(optional("after", isSequence)).and(pageArguments...), anchorsOfStudy},
	"StandingOf":      {aboutStudy, standingOf},
	"GetRequest":      {aboutRecord, getRequest},
	"RequestsByState": {
		schema{optional("state", code(states)), optional("after", isRecordID)}.and(pageArguments...), requestsByState,
	},
	"Audit": {
		schema{
			optional("study", isStudy),
			optional("organisation", isMSPID),
			optional("from", isTime),
			optional("until", isTime),
			optional("after", isAnySequence),
		}.and(pageArguments...),
		audit,
	},
	"HistoryOf": {schema{required("key", isStateKey)}.and(pageArguments...), historyOf},
	"Nodes":     {pageArguments, allNodes},
	"Datasets":  {pageArguments, allDatasets},
	"Pending":   {pageArguments, pending},
	"GetPolicy": {schema{}, getPolicy},
}
