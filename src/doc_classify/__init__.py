"""Puts mixed documents into your own categories, on your own hardware."""
