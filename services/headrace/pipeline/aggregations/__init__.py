"""The aggregations: what they keep of an event, how they are evaluated over windows, and what they mean."""
