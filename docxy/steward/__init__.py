"""What an operator does to the cache, the same in a running docxy and on the directory of a stopped one."""
