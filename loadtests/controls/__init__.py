"""The same work done with other programs. Each is a script of its own, run in the environment that has its library."""
