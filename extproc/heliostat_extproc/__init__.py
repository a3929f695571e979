"""The router process: the shell of I/O around the routing core."""

import os

# Read by gRPC when it is first imported; its own lines about forks tell an operator nothing.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
