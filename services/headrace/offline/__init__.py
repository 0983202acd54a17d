"""Features over a whole history: training sets, and the comparison of what was served with its recomputation.

It calls the library that the stream processor and the gateway call (`headrace.pipeline`), so a feature means the same
here. Data larger than memory is cut into blocks of rows and buckets of keys on disk (Polars), and several processes
work on them.
"""
