"""Pictures for people: boxes on images, curves of a run, assignments."""
