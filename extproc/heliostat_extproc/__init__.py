"""The router process: the shell of I/O around the routing core."""
