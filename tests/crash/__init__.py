"""Processes of a node ended or hindered at each of their system calls, one after the other."""
