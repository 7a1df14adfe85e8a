"""Making a model out of labelled documents: where they come from, and how good it is."""
