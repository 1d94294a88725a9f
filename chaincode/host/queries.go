package host

// The contract's queries (docs/contract.md).

// CheckAccess tells whether LogRelease would permit a study to a node: advice.
func (c *Custody) CheckAccess(ctx *Context, args string) (string, error) {
	return c.evaluate(ctx, "CheckAccess", args)
}

// ApprovedStudies lists what a node may ask for now.
func (c *Custody) ApprovedStudies(ctx *Context, args string) (string, error) {
	return c.evaluate(ctx, "ApprovedStudies", args)
}

// GetAnchor is a manifest's anchor.
func (c *Custody) GetAnchor(ctx *Context, args string) (string, error) {
	return c.evaluate(ctx, "GetAnchor", args)
}

// Anchors lists all anchors by manifest.
func (c *Custody) Anchors(ctx *Context, args string) (string, error) {
	return c.evaluate(ctx, "Anchors", args)
}

// AnchorsOfStudy lists a study's anchors in the order of commits.
func (c *Custody) AnchorsOfStudy(ctx *Context, args string) (string, error) {
	return c.evaluate(ctx, "AnchorsOfStudy", args)
}

// StandingOf tells what is superseded, flagged, withdrawn or erased of a study.
func (c *Custody) StandingOf(ctx *Context, args string) (string, error) {
	return c.evaluate(ctx, "StandingOf", args)
}

// GetRequest is a request and its approvals.
func (c *Custody) GetRequest(ctx *Context, args string) (string, error) {
	return c.evaluate(ctx, "GetRequest", args)
}

// RequestsByState lists the requests in a state.
func (c *Custody) RequestsByState(ctx *Context, args string) (string, error) {
	return c.evaluate(ctx, "RequestsByState", args)
}

// Audit lists events by sequence.
func (c *Custody) Audit(ctx *Context, args string) (string, error) {
	return c.evaluate(ctx, "Audit", args)
}

// HistoryOf lists every value a key had.
func (c *Custody) HistoryOf(ctx *Context, args string) (string, error) {
	return c.evaluate(ctx, "HistoryOf", args)
}

// Nodes lists the registered nodes.
func (c *Custody) Nodes(ctx *Context, args string) (string, error) {
	return c.evaluate(ctx, "Nodes", args)
}

// Datasets lists the versions of all datasets.
func (c *Custody) Datasets(ctx *Context, args string) (string, error) {
	return c.evaluate(ctx, "Datasets", args)
}

// Pending lists what waits for the other party.
func (c *Custody) Pending(ctx *Context, args string) (string, error) {
	return c.evaluate(ctx, "Pending", args)
}

// GetPolicy is the policy in force.
func (c *Custody) GetPolicy(ctx *Context, args string) (string, error) {
	return c.evaluate(ctx, "GetPolicy", args)
}
