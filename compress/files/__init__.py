"""Files on this machine, beneath checkpoints: what may be read, the shipped recipes, the cache's folder."""
