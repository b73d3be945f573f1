"""Benchmarks: `./run bench`. Knows the library and its peers; the library knows nothing of it."""
