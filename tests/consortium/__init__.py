"""The trial network: its model, its processes, and on a live one what no member can do alone."""
