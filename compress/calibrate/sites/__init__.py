"""Where statistics are read, one file each: a site names its keys for a family, and watches a model there."""
