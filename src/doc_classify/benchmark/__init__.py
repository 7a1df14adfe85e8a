"""Measures the pipeline on somebody's own documents and machine, honestly, and compares.

The way of a measurement: ``operations`` runs the real stages over the documents while
``sampling`` looks at the processes, ``measure`` repeats that and makes a ``result`` of it, which
``report`` prints, ``compare`` holds beside another, and the planner reads.
"""
