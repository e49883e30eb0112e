"""JSON schemas (draft 2020-12) of what the command line prints and reads: package data."""
