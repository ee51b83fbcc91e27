"""Programs round the detector: convert, inspect, build AI-TOD, paint the demo set."""
