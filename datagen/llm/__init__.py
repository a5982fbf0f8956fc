"""Models behind one interface. Outside in: chat (answer retry), budget, journal, limiter, endpoint or sim."""
