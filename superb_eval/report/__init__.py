"""The report: one HTML file that needs nothing else, drawn from a results folder."""
