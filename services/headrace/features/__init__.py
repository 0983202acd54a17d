"""The stream processor: every event counted exactly once in the feature state, and its vector published."""
