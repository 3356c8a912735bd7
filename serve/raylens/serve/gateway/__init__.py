"""The ingress of a service: authentication, limits, routing to replicas, telemetry."""
