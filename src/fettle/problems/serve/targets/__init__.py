"""Inference servers, one file each."""
