"""From a source to its stages, in CodePipeline's words; the classic way, to compare with."""
