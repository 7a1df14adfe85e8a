"""Turning documents into text, one module per family of formats."""
