"""A gRPC server for streams of bytes from the router's own Envoy, over a Unix socket.

Of what a request costs the router, the larger half would be grpcio's asyncio server: a thread of
its own polls for every operation, and each stream takes 27 KB. This one does only what that
connection needs: streams both ways, no TLS, no compression. It is for a peer that is trusted; what
others send comes in through grpcio.
"""
