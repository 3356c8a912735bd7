"""Jobs: what travels to a cluster, how it is submitted once, and how it is followed."""
