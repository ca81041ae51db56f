"""Input that was made to do harm: see each module; `python -m hostile.fuzz` goes on for as long as
it is told."""
