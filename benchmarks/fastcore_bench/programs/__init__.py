"""The servers that are compared, each run as a program of its own."""
