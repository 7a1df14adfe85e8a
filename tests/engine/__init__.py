"""A real language model and engine for tests: a model made here, served by llama.cpp."""
