"""The networks of heads."""
