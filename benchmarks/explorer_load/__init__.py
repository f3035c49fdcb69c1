"""Load on the explorer: a server, clients that ask it, and a browser that clicks."""
