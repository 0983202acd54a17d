"""What every service needs, one module a capability."""
