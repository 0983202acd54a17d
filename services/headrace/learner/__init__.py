"""The learner: takes each outcome once, in a recorded order, and publishes model versions."""
