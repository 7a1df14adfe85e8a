"""How many machines, workers and LLM servers documents take, how long, and at what price.

The way of a plan: ``catalogue`` reads the prices, the speeds of language models and the named
configurations; ``demand`` makes of a benchmark's result what one document takes; ``model`` says by
the laws of queueing what a fleet does with that; ``sizing`` finds the smallest fleet and what it
costs; ``simulation`` plays it through; ``report`` prints it.

Every number is a :class:`~.figures.Figure`: it knows whether it was measured, published, priced,
assumed, given or computed, and from what.
"""
