"""Training and validation.

Training: `trainer` is the loop, `step` one optimiser step, `build` settles what the settings leave
open and makes the parts of a run, `model_source` its network, `loaders` its batches, `optimizer`
its optimiser, schedule and averaged weights, `meter` its figures, `memory` the batch that fits,
`hooks` what a person's own code sees of it.

Validation: `inference` is the way of an image through a network and over a split, `validator` what
`rfla val` does and what follows each epoch.

State and files: `state` is what changes in a run, `checkpoint` the file that it is saved in,
`run_dir` the directory with weights and settings, `report` lines, pictures and pages, `console` how
a line and a progress look.

Processes: `distributed` is several as one, `processes` how they are started, `device` what one
computes on.
"""
