"""Writers: one function per format, from a document without a format to the bytes of a file."""
