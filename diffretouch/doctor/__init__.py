"""What a machine needs before a chain is started on it: looked at quickly, told with the command that mends it."""
