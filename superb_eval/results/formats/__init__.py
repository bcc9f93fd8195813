"""The forms that a result table takes."""
