"""Content stores: sealed objects and manifest blocks by CID."""
