"""Every crash, fault and interleaving of every verb: see `scenarios` for what is run."""
