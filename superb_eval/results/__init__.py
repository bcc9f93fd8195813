"""What came out: the run record, its intervals, and the table made of many."""
