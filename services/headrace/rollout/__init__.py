"""Brings model versions into traffic: checks them, pushes them to Triton, and writes the route table."""
