"""Jobs: the packages that are uploaded to a cluster, their submission, which happens once, and their logs."""
