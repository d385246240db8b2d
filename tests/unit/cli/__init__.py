"""The command line, in front of an admin socket with canned answers."""
