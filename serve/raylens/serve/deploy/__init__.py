"""How a service starts on Ray Serve, is watched, and stops."""
