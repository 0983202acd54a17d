"""Figures of the gateway, with their controls: `make bench-gateway`."""
