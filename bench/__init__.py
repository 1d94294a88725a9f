"""The bench: this node beside other SCPs, in one run on one machine (`make bench`)."""
