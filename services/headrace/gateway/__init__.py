"""Answers events: features, model and log behind one call, over gRPC and from Kafka."""
