"""The tamper matrix: everything that can be changed, in every place, found, listed and repaired."""
