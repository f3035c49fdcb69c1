"""Reading: the answers of an atlas, in words, rows and maps."""
