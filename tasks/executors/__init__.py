"""Where workers run: in this process, in child processes of this machine, or on a Ray cluster."""
