"""The learning loop, beside its controls."""
