"""What the command line calls, one step at a time: public functions on the names of models and files."""
