"""A cluster of several real Ray nodes on this machine."""
