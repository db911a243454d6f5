"""Int8 models: compiles TFLite files to the core's programs, and runs them on this machine or on a board."""
