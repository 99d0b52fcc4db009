"""How much memory a run needs, part by part, and how long it takes, before it is started."""
