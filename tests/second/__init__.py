"""A second implementation of `docs/fingerprint.md` and `docs/manifest.md`, written from those pages alone.

It shares no code with the product: that is its use. Clarity over speed.
"""
