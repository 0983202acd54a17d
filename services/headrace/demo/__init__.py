"""The demonstration: a card-payment history replayed through the running system, and its report."""
