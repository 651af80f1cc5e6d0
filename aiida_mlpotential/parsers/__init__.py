"""Parsers: retrieved files in, nodes and exit codes out."""
