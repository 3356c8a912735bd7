"""Deploying a service on Ray Serve: checks, start, autoscaling and stop."""
