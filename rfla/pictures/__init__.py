"""What a person looks at: boxes on images, curves of a run."""
