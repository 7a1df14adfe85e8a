"""Readers of zipped XML, one module per family; each fills a ``parts.Found``."""
