"""The statistics of a data set, in memory that does not grow with its samples."""
