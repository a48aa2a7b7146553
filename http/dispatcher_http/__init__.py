"""The surface: HTTP, websocket and command line, and the place where everything is put together."""
