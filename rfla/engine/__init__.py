"""Who does what when: training, validation, prediction, and the files that they leave."""
