"""A second implementation of `docs/contract.md`, written from that page alone, and the stories that show its rules.

It shares no code with the product: that is its use. Rows of a table where the page has a table; clarity over speed.
"""
