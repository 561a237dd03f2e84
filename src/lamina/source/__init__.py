"""Where inputs come from: images by name, live directories. `resolve` gives a pin, `fetch` its content."""
