"""What an operator does to a cache, on directories of the tests."""
