"""The command line program, with one module for each command."""
