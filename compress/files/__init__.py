"""Files on this machine, beneath checkpoints: what may be read, and the folder of what can be made again."""
