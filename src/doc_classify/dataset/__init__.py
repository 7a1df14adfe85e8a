"""Realistic test documents with labels, reproducible from a seed."""
