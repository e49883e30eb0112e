"""Fettle's algorithms inside other tools; each file needs the package that it is named after."""
