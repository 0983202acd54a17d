"""Windows straight from stored logs, in machine code. `tables` is for all; the other modules need numba."""
