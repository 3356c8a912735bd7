"""Number formats, figures and the shell of pages: what every report of raylens is made of.

Evaluations, training runs, sweeps and commands decide what is on their pages; this package decides how a number
(`numbers`), a colour (`theme`), a figure (`charts`, `plane`, on `axis`) and a page (`page`) look. Its modules are
imported one by one, for a command that prints a number needs neither templates nor matplotlib.
"""
