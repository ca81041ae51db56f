"""From a source to its stages, in CodePipeline's words. So far: the classic way, to compare with."""
