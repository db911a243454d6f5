"""Networks that leave tinyfl and come to it: Keras models, TFLite files, and programs for the core."""
