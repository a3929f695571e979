"""A gRPC server for streams of bytes from the router's own Envoy, over a Unix socket.

Of what a request costs the router, the larger half would be grpcio's asyncio server: a thread of
its own polls for every operation, and each stream takes 27 KB. This one does only what that
connection needs: streams both ways, no TLS, no compression. That Envoy speaks HTTP/2 here, also
where it leads others' streams to the router: what those send is bounded.
"""
