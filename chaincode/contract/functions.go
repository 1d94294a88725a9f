package contract

// The contract's functions: who may call each, and with which arguments. The rules are where run points.

// function is a contract function: who may call it, with what, and what it does.
type function struct {
	roles     []string
	arguments schema
	run       func(*transaction) (effect, error)
}

var (
	owner         = []string{"owner"}
	custodian     = []string{"custodian"}
	research      = []string{"research"}
	hospitalRoles = []string{"owner", "custodian"}
)

var isDUO = unique(code(duo), 0, len(duo))

var functions = map[string]function{
	"InitPolicy":    {hospitalRoles, schema{required("policy", isMap)}, initPolicy}, // its fields: policySchema
	"ProposePolicy": {hospitalRoles, schema{required("policy", isMap)}, proposePolicy},
	"ConfirmPolicy": {hospitalRoles, aboutRecord, confirmPolicy},
	"Anchor": {owner, aboutManifest.and(
		required("study", isStudy),
		required("root", isDigest),
		required("count", isCount),
		required("kind", code(anchorKinds)),
		optional("from", isDigest),
		optional("profile", code(profiles)),
	), anchor},
	"ConfirmStored":  {custodian, aboutManifest, confirmStored},
	"ReportConflict": {owner, aboutInstance.and(required("presented", isDigest)), reportConflict},
	"Supersede": {owner, aboutInstance.and(
		required("oldManifest", isManifestCID),
		required("newManifest", isManifestCID),
		required("reason", code(supersedeReasons)),
	), supersede},
	"ConfirmSupersede": {custodian, aboutRecord, confirmSupersede},
	"Withdraw": {owner, aboutStudy.and(
		optional("instances", unique(isInstance, 1, maxInstances)),
		required("reason", code(withdrawalReasons)),
	), withdraw},
	"Reinstate": {hospitalRoles, aboutRecord, reinstate},
	"FlagTampered": {hospitalRoles, aboutInstance.and(
		required("n", countFrom(0)),
		required("manifestCid", isManifestCID),
		required("observed", isDigestOrNull), // null: nothing could be read
		required("what", unique(isTagOrFrame, 0, 64)),
	), flagTampered},
	"Resolve": {hospitalRoles, aboutInstance.and(
		required("n", countFrom(0)),
		required("manifestCid", isManifestCID),
	), resolve},
	"ReportRepair": {hospitalRoles, aboutInstance.and(required("node", isNode)), reportRepair},
	"RegisterNode": {[]string{"owner", "research"}, schema{
		required("aeTitle", isAETitle),
		required("role", code(knownNodeRoles)),
		required("certDigests", unique(isDigest, 0, 2)),
	}, registerNode},
	"ConfirmNode": {custodian, aboutNode.and(required("version", isVersion)), confirmNode},
	"RevokeNode":  {roles, aboutNode, revokeNode},
	"RegisterDataset": {hospitalRoles, aboutDataset.and(
		required("root", isDigest),
		required("count", isCount),
		required("descriptorDigest", isDigest),
		required("duo", isDUO),
	), registerDataset},
	"WithdrawDataset": {hospitalRoles, aboutDataset, withdrawDataset},
	"RequestAccess": {research, schema{
		optional("studies", unique(isStudy, 1, maxStudies)),
		optional("dataset", isDataset),
		optional("version", isVersion),
		required("sopClasses", unique(isSOPClass, 1, maxSOPClasses)),
		required("duo", isDUO),
		required("days", integer(1, maxDays)),
		required("node", isNode),
		required("release", code(releaseForms)),
		required("future", isBoolean),
		optional("publicKeyDigest", isDigest),
		required("descriptionDigest", isDigest),
	}, requestAccess},
	"Approve": {hospitalRoles, aboutRecord.and(
		required("until", isTime),
		required("release", code(releaseForms)),
	), approve},
	"Deny": {hospitalRoles, aboutRecord.and(
		required("reason", code(denialReasons)),
		optional("textCommitment", isDigest),
	), deny},
	"Revoke": {roles, aboutRecord.and(
		required("reason", code(revocationReasons)),
		optional("textCommitment", isDigest),
	), revoke},
	"LogRelease": {hospitalRoles, schema{
		required("request", isRecordID),
		required("study", isStudy),
		optional("proof", isProof),
		required("anchors", unique(isManifestCID, 1, maxAnchors)),
		required("instancesRoot", isDigest),
		required("count", isCount),
		required("standingVersion", isSequence),
		required("node", isNode),
		optional("renews", isRecordID),
	}, logRelease},
	"LogOutcome": {hospitalRoles, schema{
		required("release", isRecordID),
		required("sent", countFrom(0)),
		required("withheld", countFrom(0)),
		required("bitmapDigest", isDigest),
	}, logOutcome},
	"LogDenials": {hospitalRoles, schema{
		required("reportingNode", isNode),
		optional("peer", isNode),
		optional("unregistered", isTrue),
		required("reason", code(reasons)),
		required("seq", isSequence),
		required("count", integer(1, 1<<31)),
	}, logDenials},
	"LogRetrieval": {research, schema{
		required("release", isRecordID),
		required("outcome", code(retrievalOutcomes)),
	}, logRetrieval},
	"ReportTamper": {research, schema{
		required("release", isRecordID),
		required("instance", isInstance),
		required("observed", isDigest),
	}, reportTamper},
	"RequestErase":      {hospitalRoles, aboutStudy, requestErase},
	"CancelErase":       {hospitalRoles, aboutStudy, cancelErase},
	"ConfirmErase":      {hospitalRoles, aboutStudy, confirmErase},
	"ErasureDone":       {roles, aboutStudy, erasureDone},
	"Cancel":            {hospitalRoles, aboutRecord, cancel},
	"RevokeCertificate": {roles, schema{required("serial", isSerial)}, revokeCertificate},
	"RegisterTrainingRun": {research, schema{
		optional("dataset", isDataset),
		optional("version", isVersion),
		required("codeDigest", isDigest),
		required("releases", unique(isRecordID, 1, maxReleases)),
	}, registerTrainingRun},
	"RegisterModel": {research, schema{
		required("digest", isDigest),
		required("run", isRecordID),
		required("metricsDigest", isDigest),
	}, registerModel},
}
