"""The doors to the pipeline: where a run executes."""
