"""The routing core: a state machine without I/O that decides for every request.

`Router.handle(event, now)` is the only way in. Production, the simulator and the tests run this
very code.
"""
