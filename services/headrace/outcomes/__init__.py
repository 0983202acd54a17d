"""The join: each label meets its prediction exactly once, in whichever order they come."""
