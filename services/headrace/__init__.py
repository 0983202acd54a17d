"""Headrace: real-time machine learning as one correct loop."""
