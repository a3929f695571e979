"""What clients ask for: deterministic chats and traces, for live load and for simulation."""
