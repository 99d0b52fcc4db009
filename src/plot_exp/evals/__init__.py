"""One file a benchmark: a generator or scorer in, numbers and samples out."""
