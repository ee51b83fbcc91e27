"""Programs round the detector: converting, inspecting, building AI-TOD and painting the demo set."""
