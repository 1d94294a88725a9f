"""The closed lists: no text that a person typed enters the ledger. What each code means to people: docs/contract.md."""

ROLES = ("owner", "custodian", "research")
NODE_ROLES = {"owner": ("modality", "clinical"), "research": ("research",)}
RELEASE_FORMS = ("identified", "deidentified")
ANCHOR_KINDS = ("original", "derived")
ORIGINS = ("tls-modality", "addressed-ae", "rest-user", "stow", "reconciled", "backfill", "research")

DENIAL_REASONS = ("purpose", "consent", "ethics", "scope", "duplicate", "incomplete", "other")
REVOCATION_REASONS = ("completed", "consent-withdrawn", "breach", "error", "other")
SUPERSEDE_REASONS = ("patient-mismatch", "wrong-worklist", "wrong-laterality", "metadata-corrected", "quality", "other")
RETRIEVAL_OUTCOMES = ("complete", "partial", "failed")
WITHDRAWAL_REASONS = ("113001", "113037", "113038", "113039")
"""PS3.16 CID 7011 Rejection Reason: quality, patient safety, incorrect worklist entry, retention; DCM codes."""

DEIDENTIFICATION_PROFILES = tuple(str(code) for code in range(113100, 113113))
"""PS3.16 CID 7050 De-identification Method, DCM codes."""

DUO = frozenset(
    f"DUO:{number:07d}"
    for number in (
        *(4, 6, 7, 11, 42),  # data use permissions: NRES, HMB, DS, POA, GRU
        *(12, 15, 16, 18, 19, 20, 21, 22, 24, 25, 26, 27, 28, 29, 43, 44, 45, 46),  # data use modifiers
    )
)
"""GA4GH Data Use Ontology: the codes that tag data, without its abstract parents and obsolete terms."""
