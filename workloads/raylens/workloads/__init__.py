"""What people run: the command line, recipes and the quickstart."""
