package contract

// The closed lists: no text that a person typed enters the ledger. What each code means to people: docs/contract.md.
// They are those of the embedded ledger; testdata/contract.json is what both are held against.
var (
	roles        = []string{"owner", "custodian", "research"}
	releaseForms = []string{"identified", "deidentified"}
	anchorKinds  = []string{"original", "derived"}
	origins      = []string{"tls-modality", "addressed-ae", "rest-user", "stow", "reconciled", "backfill", "research"}
	states       = []string{"open", "approved", "expired", "denied", "revoked"}

	nodeRoles      = map[string][]string{"owner": {"modality", "clinical"}, "research": {"research"}}
	knownNodeRoles = []string{"modality", "clinical", "research"}

	denialReasons     = []string{"purpose", "consent", "ethics", "scope", "duplicate", "incomplete", "other"}
	revocationReasons = []string{"completed", "consent-withdrawn", "breach", "error", "other"}
	supersedeReasons  = []string{
		"patient-mismatch", "wrong-worklist", "wrong-laterality", "metadata-corrected", "quality", "other",
	}
	retrievalOutcomes = []string{"complete", "partial", "failed"}

	// PS3.16 CID 7011 Rejection Reason: quality, patient safety, incorrect worklist entry, retention; DCM codes.
	withdrawalReasons = []string{"113001", "113037", "113038", "113039"}

	// PS3.16 CID 7050 De-identification Method, DCM codes.
	profiles = []string{
		"113100", "113101", "113102", "113103", "113104", "113105", "113106", "113107", "113108", "113109", "113110",
		"113111", "113112",
	}

	// GA4GH Data Use Ontology: the codes that tag data, without its abstract parents and obsolete terms.
	duo = []string{
		// data use permissions: NRES, HMB, DS, POA, GRU
		"DUO:0000004", "DUO:0000006", "DUO:0000007", "DUO:0000011", "DUO:0000042",
		// data use modifiers
		"DUO:0000012", "DUO:0000015", "DUO:0000016", "DUO:0000018", "DUO:0000019", "DUO:0000020", "DUO:0000021",
		"DUO:0000022", "DUO:0000024", "DUO:0000025", "DUO:0000026", "DUO:0000027", "DUO:0000028", "DUO:0000029",
		"DUO:0000043", "DUO:0000044", "DUO:0000045", "DUO:0000046",
	}
)

// Why something was refused: what a node counts in LogDenials. On ledgers for good: add, never change.
const (
	noApproval      = "no approval"
	approvalExpired = "approval expired"
	withdrawn       = "withdrawn"
)

var reasons = []string{
	noApproval, approvalExpired, "ledger unavailable", "withheld: integrity", withdrawn, "release form not available",
	"destination not permitted", "spool full", "not readable", "uid mismatch", "duplicate uid", "bad identifier",
}
