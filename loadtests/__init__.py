"""What measures speed and scale, each figure beside a control of the same run."""
