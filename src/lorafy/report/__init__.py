"""Pictures (plots.py) and a page (html.py) of a run, from the files of its directory.

Nothing is imported here: the command line takes numbers.py without paying for matplotlib.
"""
