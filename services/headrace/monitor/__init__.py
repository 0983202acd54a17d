"""The monitor: notices drift, bad quality, change of the concept and data faults."""
