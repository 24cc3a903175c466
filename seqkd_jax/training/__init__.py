"""One update, the loop over updates, and runs that go on where they were killed."""
