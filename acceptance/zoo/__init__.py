"""Networks of other kinds than tests/networks.py has, full size or tiny by their arguments."""
