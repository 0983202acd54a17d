"""What every service needs, one module a capability. Nothing here knows a service."""
