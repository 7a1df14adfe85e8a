"""Putting text into categories."""
