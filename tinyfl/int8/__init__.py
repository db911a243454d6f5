"""Int8 models: TFLite files compiled to the core's programs, and run here or on a board."""
