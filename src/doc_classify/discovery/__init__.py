"""Finding documents: a lazy walk and a streamed hash."""
