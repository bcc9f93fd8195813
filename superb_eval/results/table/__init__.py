"""The result table, before it takes any form."""
