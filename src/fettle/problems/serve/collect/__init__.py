"""Measuring many models over one space, as data that a search on a further model learns from."""
