package host

// The contract's functions (docs/contract.md), as transactions.

// InitPolicy puts the policy in force that the ledger was started with.
func (c *Custody) InitPolicy(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "InitPolicy", args, nonce)
}

// ProposePolicy proposes a policy in place of the one in force.
func (c *Custody) ProposePolicy(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "ProposePolicy", args, nonce)
}

// ConfirmPolicy puts the other party's proposal in force.
func (c *Custody) ConfirmPolicy(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "ConfirmPolicy", args, nonce)
}

// Anchor records a manifest of a study.
func (c *Custody) Anchor(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "Anchor", args, nonce)
}

// ConfirmStored records that the custodian stores a manifest.
func (c *Custody) ConfirmStored(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "ConfirmStored", args, nonce)
}

// ReportConflict notes that other content came under an instance's UID.
func (c *Custody) ReportConflict(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "ReportConflict", args, nonce)
}

// Supersede proposes the record of an instance in another manifest as the current one.
func (c *Custody) Supersede(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "Supersede", args, nonce)
}

// ConfirmSupersede makes the proposed record the current one.
func (c *Custody) ConfirmSupersede(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "ConfirmSupersede", args, nonce)
}

// Withdraw takes a study or some of its instances from research.
func (c *Custody) Withdraw(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "Withdraw", args, nonce)
}

// Reinstate is one party's word that research has a withdrawal's instances back.
func (c *Custody) Reinstate(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "Reinstate", args, nonce)
}

// FlagTampered blocks an instance of which no healthy copy was found.
func (c *Custody) FlagTampered(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "FlagTampered", args, nonce)
}

// Resolve is one party's word on which manifest a flagged instance is healthy by.
func (c *Custody) Resolve(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "Resolve", args, nonce)
}

// ReportRepair notes that a bad copy was replaced.
func (c *Custody) ReportRepair(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "ReportRepair", args, nonce)
}

// RegisterNode proposes a node, or a new version of it.
func (c *Custody) RegisterNode(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "RegisterNode", args, nonce)
}

// ConfirmNode makes a node's proposed version the current one.
func (c *Custody) ConfirmNode(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "ConfirmNode", args, nonce)
}

// RevokeNode ends a node, and what was approved for it.
func (c *Custody) RevokeNode(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "RevokeNode", args, nonce)
}

// RegisterDataset registers a dataset's next version.
func (c *Custody) RegisterDataset(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "RegisterDataset", args, nonce)
}

// WithdrawDataset ends a dataset's version, and what was approved on it.
func (c *Custody) WithdrawDataset(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "WithdrawDataset", args, nonce)
}

// RequestAccess asks for studies or a dataset, for a node.
func (c *Custody) RequestAccess(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "RequestAccess", args, nonce)
}

// Approve is one party's approval of a request.
func (c *Custody) Approve(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "Approve", args, nonce)
}

// Deny ends an open request.
func (c *Custody) Deny(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "Deny", args, nonce)
}

// Revoke ends a request, approved or not.
func (c *Custody) Revoke(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "Revoke", args, nonce)
}

// LogRelease decides whether objects may leave now, and records it.
func (c *Custody) LogRelease(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "LogRelease", args, nonce)
}

// LogOutcome records what of a release was sent.
func (c *Custody) LogOutcome(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "LogOutcome", args, nonce)
}

// LogDenials records how often a node refused something.
func (c *Custody) LogDenials(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "LogDenials", args, nonce)
}

// LogRetrieval is the recipient's word on what came of a release.
func (c *Custody) LogRetrieval(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "LogRetrieval", args, nonce)
}

// ReportTamper is the recipient's word that an instance of a release differs.
func (c *Custody) ReportTamper(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "ReportTamper", args, nonce)
}

// RequestErase asks for a study's erasure.
func (c *Custody) RequestErase(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "RequestErase", args, nonce)
}

// CancelErase takes a study's erasure back.
func (c *Custody) CancelErase(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "CancelErase", args, nonce)
}

// ConfirmErase erases a study, after the time of grace.
func (c *Custody) ConfirmErase(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "ConfirmErase", args, nonce)
}

// ErasureDone is an organisation's word that it has erased a study.
func (c *Custody) ErasureDone(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "ErasureDone", args, nonce)
}

// Cancel takes a proposal off the table.
func (c *Custody) Cancel(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "Cancel", args, nonce)
}

// RevokeCertificate takes back a certificate of the own organisation.
func (c *Custody) RevokeCertificate(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "RevokeCertificate", args, nonce)
}

// RegisterTrainingRun records which releases a training run used.
func (c *Custody) RegisterTrainingRun(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "RegisterTrainingRun", args, nonce)
}

// RegisterModel records a model and the run it came of.
func (c *Custody) RegisterModel(ctx *Context, args, nonce string) (string, error) {
	return c.submit(ctx, "RegisterModel", args, nonce)
}
