"""How the system is run: the stack without Docker, and the configuration of what it runs on."""
