"""What people run: the command line, recipes, the quickstart, and the submission of jobs."""
