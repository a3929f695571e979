"""What is told of requests: metrics, the access log, traces, and why each went where it went."""
