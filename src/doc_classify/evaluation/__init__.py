"""How often a classifier is right, on labelled documents, and how far its word can be trusted."""
