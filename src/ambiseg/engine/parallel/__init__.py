"""Work in several processes and on several machines: launchers, pieces, Ray."""
