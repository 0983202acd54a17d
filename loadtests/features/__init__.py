"""Speed and size of the feature engine: stream, engine alone, reading, recomputation, memory."""
