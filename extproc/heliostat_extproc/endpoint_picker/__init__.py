"""The endpoint picker protocol, as gateways of others speak it."""
