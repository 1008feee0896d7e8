"""Change detectors over streams of single values, by name plugins of the kind `stream`: settings with init, update, restore."""
