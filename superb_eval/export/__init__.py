"""Results and encoders in other programs' formats."""
