"""The acceptance tables on full-size networks: `python -m acceptance`, figures as JSON and Markdown."""
